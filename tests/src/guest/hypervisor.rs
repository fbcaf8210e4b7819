//! A guest that passes its devices on: it gives them to vfio-pci, and can be a hypervisor (L1) with a guest of its own
//! (L2).

use anyhow::Result;

use super::typed::says;
use super::{Boot, Guest, GuestConfig, Vmm};

/// An L1 that can be a hypervisor with `inner` as its VMM.
pub(crate) fn outer(devices: &[&str], inner: Vmm) -> GuestConfig {
    GuestConfig {
        initrd: match inner {
            Vmm::Strait => "nested",
            Vmm::Qemu => "nested-qemu",
        },
        memory_mib: 1024,
        ..GuestConfig::with(devices).behind_iommu("intel_iommu=on iommu=pt")
    }
}

/// The command that starts L2 in L1, with the first devices of L1.
pub(crate) fn inner(boot: &Boot, vmm: Vmm, devices: &[&str], cpus: u32) -> String {
    let config = GuestConfig {
        initrd: "inner",
        memory_mib: 256,
        cpus,
        ..GuestConfig::with(devices)
    };
    let words = vmm.command(&config, &boot.cmdline(""));
    words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// L1 becomes a hypervisor, and gives devices to vfio-pci: with strait where it is inside, else by hand.
pub(crate) fn give(guest: &mut Guest<'_>, drivers: &str, devices: &[&str]) -> Result<()> {
    guest.sh(&format!(
        "load {drivers}; grep -qw svm /proc/cpuinfo; [ -c /dev/kvm ]"
    ))?;
    says(
        guest,
        "cat /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "N",
    )?;
    for device in devices {
        guest.sh(&format!(
            "if [ -x /bin/strait ]; then strait host bind {device}; else {}; fi",
            by_hand(device)
        ))?;
        says(guest, &driver(device), "vfio-pci")?;
    }
    Ok(())
}

/// A guest gives a device to vfio-pci by hand.
pub(crate) fn give_by_hand(guest: &mut Guest<'_>, device: &str) -> Result<()> {
    guest.sh(&format!("load; {}", by_hand(device)))?;
    says(guest, &driver(device), "vfio-pci")
}

fn by_hand(device: &str) -> String {
    format!(
        "cd /sys/bus/pci/devices/0000:{device}
         [ ! -e driver ] || echo 0000:{device} > driver/unbind
         echo vfio-pci > driver_override; echo 0000:{device} > /sys/bus/pci/drivers_probe"
    )
}

/// L1 takes a device back, and drives it itself.
pub(crate) fn take_back(guest: &mut Guest<'_>, device: &str, expected: &str) -> Result<()> {
    let by_hand = format!(
        "cd /sys/bus/pci/devices/0000:{device}; echo 0000:{device} > driver/unbind
         echo > driver_override; echo 0000:{device} > /sys/bus/pci/drivers_probe"
    );
    guest.sh(&format!(
        "if [ -x /bin/strait ]; then strait host restore {device}; else {by_hand}; fi"
    ))?;
    says(guest, &driver(device), expected)
}

fn driver(device: &str) -> String {
    format!("driver_of /sys/bus/pci/devices/0000:{device}")
}

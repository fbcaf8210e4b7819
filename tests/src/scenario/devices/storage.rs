//! Drives: data that comes back, and a guest whose root file system is on one.

use anyhow::{Result, ensure};

use super::{E1000E, NVME, RTL8139, XHCI, bind, config, restore, run, says, says_the_same};
use crate::guest::GuestConfig;
use crate::scenario::{Context, Host, Scenario, Verdict};

/// The drive's, its file system's, and the check sums that this one uses.
const DRIVERS: &str = "nvme,crc32c_generic,ext4";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "msi-xhci",
            "a USB controller that has MSI and no MSI-X: 8 MiB written to a stick and read back",
            240,
            xhci,
        ),
        Scenario::new(
            "nvme",
            "an NVMe drive: formatted, 256 MiB written, then the root file system of another guest",
            600,
            nvme,
        ),
        Scenario::new(
            "nvme-never-driven",
            "an NVMe drive that no driver of the host ever had, beside two NICs: 8 MiB written and read back",
            240,
            never_driven,
        )
        .on(Host::Undriven),
    ]
}

fn xhci(lab: &Context) -> Result<Verdict> {
    let config = config(lab, &[XHCI], "xhci_pci,usb_storage,sd_mod", "stick");
    run(lab, &[XHCI], &config, |guest| {
        says_the_same(guest)?;
        says(guest, "controller", "PCI-MSI")
    })
}

/// Linux turns MSI-X on with every vector masked, then the controller, then unmasks: a drive that nobody had before
/// must find MSI-X on when it starts (drivers/nvme/host/pci.c, `nvme_pci_enable`, `nvme_pci_configure_admin_queue`).
fn never_driven(lab: &Context) -> Result<Verdict> {
    let devices = [RTL8139, E1000E[0], E1000E[1], NVME];
    let config = GuestConfig {
        cpus: 2,
        ..config(lab, &devices, "8139cp,e1000e,nvme", "little")
    };
    run(lab, &devices, &config, says_the_same)
}

/// The second guest finds the file system that the first one made, and in it what that one wrote.
fn nvme(lab: &Context) -> Result<Verdict> {
    let drive = bind(lab, &[NVME])?;
    let wrote = lab.with_guest(&config(lab, &[NVME], DRIVERS, "format"), |guest| {
        let wrote = guest.expect("wrote")?;
        let vectors: u32 = guest.expect("vectors")?.parse()?;
        ensure!(
            vectors >= 2,
            "The drive has {vectors} vectors, expected an I/O queue's too"
        );
        guest.expect_power_off()?;
        Ok(wrote)
    })?;
    lab.with_guest(&config(lab, &[NVME], DRIVERS, "boot_from_disk"), |guest| {
        says(guest, "root", "/dev/nvme0n1")?;
        says(guest, "read", &wrote)?;
        guest.expect_power_off()
    })?;
    restore(drive)?;
    Ok(Verdict::Passed)
}

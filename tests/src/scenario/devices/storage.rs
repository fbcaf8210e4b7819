//! Drives: data that comes back, and a guest whose root file system is on one.

use anyhow::{Result, ensure};

use super::{Kind, controller_of, take};
use crate::guest::{GuestConfig, kept, number, says};
use crate::lab::devices::{E1000E, NVME, RTL8139, XHCI};
use crate::scenario::{Lab, Scenario};

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
        .on(Kind::Undriven)
        .full(),
    ]
}

fn xhci(lab: &Lab<'_>) -> Result<()> {
    lab.run(&take(lab, &[XHCI.at()])?, |guest| {
        guest.sh("load xhci_pci usb_storage sd_mod")?;
        kept(guest, "/dev/sda", 8)?;
        says(guest, &controller_of("xhci_hcd"), "PCI-MSI")
    })
}

/// Linux turns MSI-X on with every vector masked, then the controller, then unmasks: a drive that nobody had before
/// must find MSI-X on when it starts (drivers/nvme/host/pci.c, `nvme_pci_enable`, `nvme_pci_configure_admin_queue`).
fn never_driven(lab: &Lab<'_>) -> Result<()> {
    let functions = [RTL8139.at(), E1000E.functions[0], E1000E.functions[1], NVME.at()];
    let config = GuestConfig {
        cpus: 2,
        ..take(lab, &functions)?
    };
    lab.run(&config, |guest| {
        guest.sh("load 8139cp e1000e nvme")?;
        kept(guest, "/dev/nvme0n1", 8)
    })
}

/// A file system with what it takes to boot from it, and much data.
const FORMAT: &str = "load nvme crc32c_generic ext4
    wait_until 30 test -b /dev/nvme0n1 || fail there is no drive
    blkdiscard /dev/nvme0n1; mke2fs /dev/nvme0n1 > /run/mke2fs 2>&1
    mkdir -p /disk; mount -t ext2 /dev/nvme0n1 /disk
    cp -a /bin /init /disk; mkdir /disk/dev /disk/proc /disk/run /disk/sys /disk/tmp /disk/modules
    dd if=/dev/urandom of=/disk/data bs=1M count=256 2> /dev/null; sha256sum < /disk/data
    umount /disk";

/// Goes on from the drive, whose first program takes commands in turn.
const SWITCH: &str = "load nvme crc32c_generic ext4
    wait_until 30 test -b /dev/nvme0n1 || fail there is no drive
    mount -t ext2 -o ro /dev/nvme0n1 /new; switch /new";

/// The second guest finds the file system that the first one made, and in it what that one wrote.
fn nvme(lab: &Lab<'_>) -> Result<()> {
    let config = take(lab, &[NVME.at()])?;
    let wrote = lab.run(&config, |guest| {
        let wrote = guest.sh(FORMAT)?;
        let vectors = number(guest, "grep -c nvme0q /proc/interrupts")?;
        ensure!(
            vectors >= 2,
            "The drive has {vectors} vectors, expected an I/O queue's too"
        );
        Ok(wrote)
    })?;
    lab.run(&config, |guest| {
        guest.sh(SWITCH)?;
        guest.ready()?;
        says(
            guest,
            "sed -n 's/^\\([^ ]*\\) \\/ .*/\\1/p' /proc/mounts | tail -n 1",
            "/dev/nvme0n1",
        )?;
        says(guest, "sha256sum < /data", &wrote)
    })
}

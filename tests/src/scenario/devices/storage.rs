//! Drives: data that comes back, and a guest whose root file system is on one.

use anyhow::{Result, ensure};

use super::{NVME, XHCI, bind, config, restore, run, says, says_the_same};
use crate::scenario::{Context, Scenario, Verdict};

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
    ]
}

fn xhci(lab: &Context) -> Result<Verdict> {
    let config = config(lab, &[XHCI], "xhci_pci,usb_storage,sd_mod", "stick");
    run(lab, &[XHCI], &config, |guest| {
        says_the_same(guest)?;
        says(guest, "controller", "PCI-MSI")
    })
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

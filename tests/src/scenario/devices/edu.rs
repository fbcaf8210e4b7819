//! Devices that no driver knows, driven by hand: every kind of BAR, the wire, DMA to RAM and to a peer.

use anyhow::Result;

use super::{EDU, SHARED_MEMORY, TESTDEV, config, run, says, says_number, with_words};
use crate::scenario::{Context, Scenario, Verdict};

const DEVICES: [&str; 3] = [EDU, TESTDEV, SHARED_MEMORY];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "edu",
        "three groups: memory, small and port BARs, ten interrupts by wire, DMA to RAM and to a peer's BAR",
        240,
        edu,
    )]
}

/// The guest's kernel leaves a page of RAM to the device's DMA.
fn edu(lab: &Context) -> Result<Verdict> {
    let config = config(lab, &DEVICES, "uio_pci_generic", "edu,edu_dma,testdev");
    let config = with_words(config, "memmap=64K$0x8000000");
    run(lab, &DEVICES, &config, |guest| {
        says_number(guest, "identity", 0x0100_00ed)?;
        says_number(guest, "inverse", 0xedcb_a987)?;
        says_number(guest, "factorial", 479_001_600)?;
        says(guest, "interrupts", "10")?;
        says(guest, "controller", "IO-APIC")?;
        says_number(guest, "mask", 0x5a5)?;
        says_number(guest, "ram", 0x1122_3344_5566_7788)?;
        says_number(guest, "peer", 0x99aa_bbcc_ddee_ff00)?;
        says_number(guest, "both", 0x0123_4567_89ab_cdef)?;
        says_number(guest, "memory", 3)?;
        says_number(guest, "ports", 5)
    })
}

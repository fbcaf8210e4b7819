//! Devices that no driver knows, driven by hand: every kind of BAR, the wire, DMA to RAM and to a peer.

use anyhow::{Context as _, Result, ensure};

use super::{EDU, SHARED_MEMORY, TESTDEV, config, run, says, says_number, with_words};
use crate::scenario::{Context, Scenario, Verdict};

/// Length of the shared memory.
const BAR_LEN: u64 = 4 << 20;

/// What a page table entry of the second level maps.
const LARGE_PAGE: u64 = 2 << 20;

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
    let config = config(lab, &DEVICES, "uio_pci_generic", "edu,edu_dma,testdev,ask");
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
        says_number(guest, "ports", 5)?;
        guest.expect("ask")?;
        check_alignment(&lab.agent.sh(&format!("cat /proc/{}/maps", guest.pid))?)?;
        guest.type_line("poweroff")
    })
}

/// The shared memory's BAR, the only one of its length, is mapped where the host can use large pages.
fn check_alignment(maps: &str) -> Result<()> {
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let address = |digits| u64::from_str_radix(digits, 16).ok();
        Some((address(start)?, address(end)?))
    };
    let bars = maps.lines().filter(|line| line.contains("vfio-device"));
    let shared = bars.filter_map(range).find(|(start, end)| end - start == BAR_LEN);
    let (start, _) = shared.context("The VMM maps no BAR of 4 MiB")?;
    ensure!(
        start.is_multiple_of(LARGE_PAGE),
        "The BAR of 4 MiB is mapped at {start:#x}, which is not congruent to it"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_large_bar_is_looked_at() {
        let maps = |range: &str| {
            format!(
                "7f0000001000-7f0000002000 rw-s 0 00:0f 1 anon_inode:[vfio-device]\n\
                 {range} rw-s 0 00:0f 1 anon_inode:[vfio-device]\n"
            )
        };
        assert!(check_alignment(&maps("7f0000800000-7f0000c00000")).is_ok());
        assert!(check_alignment(&maps("7f0000900000-7f0000d00000")).is_err());
        assert!(check_alignment("").is_err());
    }
}

//! Much memory mapped by one call of a VFIO program in the guest: what the host is asked for it.

use std::time::Duration;

use anyhow::{Context, Result};
use strait_bench::counting::{CALLS, Counts, MAP, Trace, UNMAP};

use super::Bench;
use crate::guest::{Guest, GuestConfig, Vmm, hypervisor};
use crate::lab::Assigned;
use crate::lab::devices::EDU;

/// What an ioctl returns where the host has no room for another mapping (ENOSPC).
const NO_ROOM: [&str; 2] = ["-28", "18446744073709551588"];

/// 4 KiB pages of a size.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) name: &'static str,
    pages: u64,
    memory_mib: u64,
    words: &'static str,
    /// Whether the guest's memory may be large pages.
    large_pages: &'static str,
}

/// One large page of the guest's kernel, which its IOMMU driver is told to map by small ones: one
/// invalidation names all of them.
pub(super) const TWO_MIB: Size = Size {
    name: "2 MiB",
    pages: 512,
    memory_mib: 512,
    words: "intel_iommu=on,sp_off",
    large_pages: "always",
};

/// Ordinary memory, as contiguous as the guest's kernel happens to have it.
pub(super) const ONE_GIB: Size = Size {
    name: "1 GiB",
    pages: 1 << 18,
    memory_mib: 2048,
    words: "intel_iommu=on",
    large_pages: "never",
};

/// What the host was asked.
#[derive(Debug, Clone)]
pub(super) struct Bulk {
    /// Contiguous pieces of the guest's memory.
    pub(super) runs: u64,
    pub(super) maps: u64,
    /// Maps for which the host had no room.
    pub(super) refused: u64,
    pub(super) unmaps: u64,
    /// As the guest's program saw it.
    pub(super) map_ms: f64,
    pub(super) unmap_ms: f64,
}

/// Runs one guest with the teaching device.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm, size: Size) -> Result<Bulk> {
    let device = Assigned::bind(bench.agent, EDU.at())?;
    let config = GuestConfig {
        initrd: "probe",
        memory_mib: size.memory_mib,
        ..GuestConfig::with(&[EDU.at()]).behind_iommu(size.words)
    };
    let bulk = bench.with_guest(vmm, &config, |guest| {
        guest.ready()?;
        hypervisor::give_by_hand(guest, "01:00.0")?;
        guest.sh(&format!(
            "echo {} > /sys/kernel/mm/transparent_hugepage/enabled",
            size.large_pages
        ))?;
        let probe = format!("lab probe bulk --pages {} 0000:01:00.0", size.pages);
        guest.type_script(&probe)?;
        let runs = line(guest, "runs")?;
        let (mapped, map_ms) = step(bench, guest, "before", "mapped")?;
        let (unmapped, unmap_ms) = step(bench, guest, "between", "unmapped")?;
        guest.line_with("behind")?;
        guest.type_text("\n")?;
        guest.answer(&probe)?;
        guest.power_off()?;
        Ok(Bulk {
            runs: runs as u64,
            maps: mapped.ioctls(MAP),
            refused: NO_ROOM.iter().map(|answer| mapped.of("answers", answer)).sum(),
            unmaps: unmapped.ioctls(UNMAP),
            map_ms,
            unmap_ms,
        })
    })?;
    device.restore()?;
    Ok(bulk)
}

/// Lets the guest's program go on to its next pause, and counts meanwhile.
fn step(bench: &Bench<'_>, guest: &mut Guest<'_>, at: &str, word: &str) -> Result<(Counts, f64)> {
    guest.line_with(at)?;
    let trace = Trace::start(bench.agent, CALLS)?;
    guest.type_text("\n")?;
    let ms = line(guest, word)?;
    Ok((trace.finish()?, ms))
}

/// The number on the next line that begins with this word.
fn line(guest: &mut Guest<'_>, word: &str) -> Result<f64> {
    let text = guest.line_with(&format!("{word} "))?;
    let number = text.trim_start_matches(word).trim();
    number
        .parse()
        .with_context(|| format!("The guest's program says `{text}`"))
}

impl std::fmt::Display for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let took = Duration::from_millis(self.map_ms as u64);
        write!(f, "{} maps, {} refused, {took:?}", self.maps, self.refused)
    }
}

//! Looking at a running VMM's process.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::agent::Agent;
use crate::vmm::Vmm;

/// What a VMM costs beside its guest.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Process {
    /// Private memory beyond guest RAM.
    pub(super) private_kib: u64,
    pub(super) threads: u64,
    /// The VMM's own file; QEMU's libraries and firmware are not counted, to its favour.
    pub(super) binary_bytes: u64,
    /// Calls that mapped parts of guest RAM for DMA.
    pub(super) ram_maps: u64,
}

impl Process {
    /// Looks at a running VMM. Guest RAM is told by size: the mappings of at least a quarter of it,
    /// since a VMM may split it around the hole below 4 GiB.
    pub(super) fn sample(agent: &Agent, vmm: Vmm, pid: u32, memory_mib: u64, ram_maps: u64) -> Result<Self> {
        let smaps = agent.sh(&format!("cat /proc/{pid}/smaps"))?;
        let threads = agent.sh(&format!("ls /proc/{pid}/task | wc -l"))?;
        let program = match vmm {
            Vmm::Strait => "strait",
            Vmm::Qemu => "qemu-system-x86_64",
        };
        let size = agent.sh(&format!("stat -L -c %s $(command -v {program})"))?;
        Ok(Self {
            private_kib: sum_private(&smaps, memory_mib * 1024 / 4)
                .context("The VMM's memory map cannot be read")?,
            threads: threads
                .trim()
                .parse()
                .context("The VMM's threads cannot be counted")?,
            binary_bytes: size.trim().parse().context("The VMM's size cannot be read")?,
            ram_maps,
        })
    }
}

/// Locked and pinned memory, as the host counts it against the limit: of type 1 containers the former, of
/// iommufd the latter.
pub(super) fn locked_kib(agent: &Agent, pid: u32) -> Result<u64> {
    let status = agent.sh(&format!("cat /proc/{pid}/status"))?;
    let kib = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let counts = matches!(key, "VmLck" | "VmPin");
        counts.then(|| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())?
    };
    Ok(status.lines().filter_map(kib).sum())
}

fn sum_private(smaps: &str, ram_kib: u64) -> Option<u64> {
    let (mut total, mut is_ram, mut mappings) = (0, false, 0);
    for line in smaps.lines() {
        let (key, rest) = line.split_once(char::is_whitespace)?;
        let kib = || rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok();
        match key {
            "Size:" => {
                mappings += 1;
                is_ram = kib()? >= ram_kib;
            }
            "Private_Clean:" | "Private_Dirty:" if !is_ram => total += kib()?,
            _ => {}
        }
    }
    (mappings > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ram_is_left_out() {
        let smaps = "7f00-7f01 rw-p 00000000 00:00 0 \nSize:             524288 kB\nPrivate_Dirty:    300000 kB\n\
                     7f02-7f03 rw-p 00000000 00:00 0 \nSize:                 64 kB\nPrivate_Clean:         4 kB\n\
                     Private_Dirty:         8 kB\n";
        assert_eq!(sum_private(smaps, 131_072), Some(12));
    }
}

//! Looking at a running VMM's process.

use anyhow::{Context, Result};

use crate::shell::Shell;

/// What a VMM costs beside its guest.
#[derive(Debug, Default, Clone)]
pub struct Process {
    /// Private memory beyond guest RAM.
    pub private_kib: u64,
    /// Threads, those of the guest's CPUs too.
    pub threads: u64,
    /// Open files of all kinds.
    pub descriptors: u64,
    /// The VMM's own file; QEMU's libraries and firmware are not counted, to its favour.
    pub binary_bytes: u64,
    /// Calls that mapped parts of guest RAM for DMA.
    pub ram_maps: u64,
}

impl Process {
    /// Looks at a running VMM. Guest RAM is told by size: the mappings of at least a quarter of it,
    /// since a VMM may split it around the hole below 4 GiB.
    pub fn sample(
        shell: &dyn Shell,
        program: &str,
        pid: u32,
        memory_mib: u64,
        ram_maps: u64,
    ) -> Result<Self> {
        let smaps = shell.sh(&format!("cat /proc/{pid}/smaps"))?;
        let entries = |folder: &str| -> Result<u64> {
            let count = shell.sh(&format!("ls /proc/{pid}/{folder} | wc -l"))?;
            let count = count.trim().parse();
            count.with_context(|| format!("The VMM's {folder} cannot be counted"))
        };
        let size = shell.sh(&format!("stat -L -c %s $(command -v {program})"))?;
        Ok(Self {
            private_kib: sum_private(&smaps, memory_mib * 1024 / 4)
                .context("The VMM's memory map cannot be read")?,
            threads: entries("task")?,
            descriptors: entries("fd")?,
            binary_bytes: size.trim().parse().context("The VMM's size cannot be read")?,
            ram_maps,
        })
    }
}

/// CPU time of all threads of a VMM, in seconds.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cpu {
    /// In the VMM itself: user time in which no guest ran.
    pub own_s: f64,
    /// In the host's kernel for it, KVM and VFIO included.
    pub system_s: f64,
}

impl Cpu {
    /// What it used so far.
    pub fn sample(shell: &dyn Shell, pid: u32) -> Result<Self> {
        let stat = shell.sh(&format!("cat /proc/{pid}/stat"))?;
        Self::parse(&stat).with_context(|| format!("The VMM's CPU time cannot be read from {stat}"))
    }

    /// Fields 14, 15 and 43 of proc(5), in hundredths of a second. User time holds the guest's.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / 100.0);
        Some(Self {
            own_s: seconds(14)? - seconds(43)?,
            system_s: seconds(15)?,
        })
    }

    /// What was used since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            own_s: self.own_s - earlier.own_s,
            system_s: self.system_s - earlier.system_s,
        }
    }
}

/// Locked and pinned memory, as the host counts it against the limit: of type 1 containers the former, of
/// iommufd the latter.
pub fn locked_kib(shell: &dyn Shell, pid: u32) -> Result<u64> {
    let status = shell.sh(&format!("cat /proc/{pid}/status"))?;
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
    fn own_time_is_user_time_without_the_guests() {
        let stat = "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 500 30 0 0 20 0 4 0 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 1 2 3 420 0";
        let cpu = Cpu::parse(stat).expect("as proc(5) says");
        assert!((cpu.own_s - 0.8).abs() < 1e-9 && (cpu.system_s - 0.3).abs() < 1e-9);
    }

    #[test]
    fn guest_ram_is_left_out() {
        let smaps = "7f00-7f01 rw-p 00000000 00:00 0 \nSize:             524288 kB\nPrivate_Dirty:    300000 kB\n\
                     7f02-7f03 rw-p 00000000 00:00 0 \nSize:                 64 kB\nPrivate_Clean:         4 kB\n\
                     Private_Dirty:         8 kB\n";
        assert_eq!(sum_private(smaps, 131_072), Some(12));
    }
}

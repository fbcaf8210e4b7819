//! The page tables of a guest that runs a guest of its own: KVM translates by those of the inner one then.

use strait_devices::GuestAddress;
use vm_memory::{Bytes as _, GuestMemoryMmap};

use crate::kvm::debug::Tables;

/// CR4.LA57: five levels (SDM vol. 3 §5.5.1).
const FIVE_LEVELS: u64 = 1 << 12;

/// Bits of a table entry (SDM vol. 3 §5.5.4).
const PRESENT: u64 = 1;
const PAGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where `linear` is in guest memory by the tables of 64-bit mode: at most five steps.
pub(super) fn translate(memory: &GuestMemoryMmap, tables: Tables, linear: u64) -> Option<GuestAddress> {
    let levels = if tables.cr4 & FIVE_LEVELS != 0 { 5 } else { 4 };
    let mut table = tables.cr3 & ADDRESS;
    for level in (1..=levels).rev() {
        let shift = 3 + 9 * level;
        let index = linear >> shift & 0x1ff;
        let entry: u64 = memory.read_obj(GuestAddress(table + 8 * index)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        // Pages of 1 GiB and 2 MiB.
        let is_large = matches!(level, 2 | 3) && entry & PAGE != 0;
        if level == 1 || is_large {
            let within = (1 << shift) - 1;
            return Some(GuestAddress(entry & ADDRESS & !within | linear & within));
        }
        table = entry & ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Range;
    use crate::memory::{GuestRam, RamSource};

    /// Writes table entries: their place, and what they hold.
    fn memory(entries: &[(u64, u64)]) -> GuestRam {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        for (at, entry) in entries {
            ram.memory().write_obj(*entry, GuestAddress(*at)).expect("memory");
        }
        ram
    }

    const FOUR: Tables = Tables { cr3: 0x1000, cr4: 0 };

    #[test]
    fn pages_of_each_size_are_found() {
        let ram = memory(&[
            (0x1000 + 8 * 511, 0x2003), // the kernel's half
            (0x2000 + 8 * 510, 0x3003),
            (0x2000 + 8 * 509, 0x4000_0083), // 1 GiB
            (0x3000 + 8 * 8, 0x0120_00e3),   // 2 MiB
            (0x3000 + 8 * 9, 0x4003),
            (0x4008, 0x8000_0000_0005_6003), // 4 KiB, not executable
        ]);
        let find = |linear| translate(ram.memory(), FOUR, linear).map(|found| found.0);
        assert_eq!(find(0xffff_ffff_8100_0123), Some(0x0120_0123));
        assert_eq!(find(0xffff_ffff_8120_1fff), Some(0x0005_6fff));
        assert_eq!(find(0xffff_ffff_4000_0000 + 0x12345), Some(0x4000_0000 + 0x12345));
        assert_eq!(find(0xffff_ffff_8120_2000), None, "nothing is there");
        assert_eq!(find(0), None);
    }

    #[test]
    fn five_levels_are_walked_where_there_are_five() {
        let ram = memory(&[
            (0x1000 + 8 * 511, 0x5003),
            (0x5000 + 8 * 511, 0x2003),
            (0x2000 + 8 * 509, 0x4000_0083),
        ]);
        let tables = Tables {
            cr4: FIVE_LEVELS,
            ..FOUR
        };
        let found = translate(ram.memory(), tables, 0xffff_ffff_4000_0042);
        assert_eq!(found, Some(GuestAddress(0x4000_0042)));
    }

    #[test]
    fn tables_that_are_no_memory_or_lead_in_circles_end() {
        let ram = memory(&[(0x1000, 0x1003)]);
        assert_eq!(translate(ram.memory(), FOUR, 0), Some(GuestAddress(0x1000)));
        let nowhere = Tables {
            cr3: 0x000f_ffff_ffff_f000,
            cr4: 0,
        };
        assert_eq!(translate(ram.memory(), nowhere, u64::MAX), None);
    }
}

//! The page tables of a guest that runs a guest of its own: KVM translates by those of the inner one then.

use strait_devices::GuestAddress;
use vm_memory::{Bytes as _, GuestMemoryMmap};

use crate::kvm::debug::Tables;

/// CR0.PG: linear addresses are translated at all.
const PAGING: u64 = 1 << 31;
/// CR4.PSE, pages of 4 MiB; CR4.PAE, entries of 8 bytes; CR4.LA57, five levels (SDM vol. 3 §5.1.1).
const LARGE_PAGES: u64 = 1 << 4;
const WIDE_ENTRIES: u64 = 1 << 5;
const FIVE_LEVELS: u64 = 1 << 12;

/// Bits of a table entry (SDM vol. 3 §5.3 to §5.5.4).
const PRESENT: u64 = 1;
const PAGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where `linear` is in guest memory: at most five steps. A CPU that is not in 64-bit mode has linear addresses of 32 bits.
pub(super) fn translate(memory: &GuestMemoryMmap, tables: Tables, linear: u64) -> Option<GuestAddress> {
    let has = |bit: u64| tables.cr4 & bit != 0;
    let narrow = linear & 0xffff_ffff;
    match () {
        () if tables.cr0 & PAGING == 0 => Some(GuestAddress(narrow)),
        () if tables.is_long => {
            let levels = if has(FIVE_LEVELS) { 5 } else { 4 };
            by_wide_entries(memory, tables.cr3 & ADDRESS, levels, linear)
        }
        () if has(WIDE_ENTRIES) => {
            let at = (tables.cr3 & 0xffff_ffe0) + 8 * (narrow >> 30);
            let entry: u64 = memory.read_obj(GuestAddress(at)).ok()?;
            let table = present(entry)? & ADDRESS;
            by_wide_entries(memory, table, 2, narrow)
        }
        () => by_narrow_entries(memory, tables.cr3 & 0xffff_f000, has(LARGE_PAGES), narrow),
    }
}

/// Entries of 8 bytes (SDM vol. 3 §5.4.2, §5.5).
fn by_wide_entries(
    memory: &GuestMemoryMmap,
    mut table: u64,
    levels: u32,
    linear: u64,
) -> Option<GuestAddress> {
    for level in (1..=levels).rev() {
        let shift = 3 + 9 * level;
        let index = linear >> shift & 0x1ff;
        let entry = present(memory.read_obj(GuestAddress(table + 8 * index)).ok()?)?;
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

/// Entries of 4 bytes (SDM vol. 3 §5.3). One for 4 MiB has bits 32 to 39 of the address in its bits 13 to 20.
fn by_narrow_entries(
    memory: &GuestMemoryMmap,
    table: u64,
    has_large: bool,
    linear: u64,
) -> Option<GuestAddress> {
    let read = |at: u64| -> Option<u64> {
        let entry: u32 = memory.read_obj(GuestAddress(at)).ok()?;
        present(entry.into())
    };
    let entry = read(table + 4 * (linear >> 22))?;
    if has_large && entry & PAGE != 0 {
        let high = (entry >> 13 & 0xff) << 32;
        return Some(GuestAddress(high | entry & 0xffc0_0000 | linear & 0x003f_ffff));
    }
    let entry = read((entry & 0xffff_f000) + 4 * (linear >> 12 & 0x3ff))?;
    Some(GuestAddress(entry & 0xffff_f000 | linear & 0xfff))
}

fn present(entry: u64) -> Option<u64> {
    (entry & PRESENT != 0).then_some(entry)
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

    const FOUR: Tables = Tables {
        cr0: PAGING,
        cr3: 0x1000,
        cr4: WIDE_ENTRIES,
        is_long: true,
    };

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
            cr4: WIDE_ENTRIES | FIVE_LEVELS,
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
            ..FOUR
        };
        assert_eq!(translate(ram.memory(), nowhere, u64::MAX), None);
    }

    #[test]
    fn a_cpu_of_32_bits_has_tables_of_its_own() {
        let entry = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let ram = memory(&[
            (0x1000, entry(0x83, 0x0080_2083)), // 4 MiB at 0; 4 MiB at 4 GiB and 8 MiB
            (0x1008, entry(0x2003, 0x2002)),
            (0x2008, entry(0x5_6003, 0)),
        ]);
        let narrow = Tables {
            cr4: LARGE_PAGES,
            is_long: false,
            ..FOUR
        };
        let find = |tables, linear| translate(ram.memory(), tables, linear).map(|found| found.0);
        assert_eq!(find(narrow, 0x31_0004), Some(0x31_0004));
        assert_eq!(find(narrow, 0x40_1234), Some(0x1_0080_1234));
        assert_eq!(find(narrow, 0x80_2fff), Some(0x5_6fff));
        assert_eq!(find(narrow, 0xc0_2fff), None, "the table is not there");
        assert_eq!(find(narrow, 0x80_3000), None, "the page is not there");
        let small = Tables { cr4: 0, ..narrow };
        assert_eq!(
            find(small, 0x123),
            None,
            "without PSE the first entry is a table at 0, which is empty"
        );
        let off = Tables { cr0: 0, ..narrow };
        assert_eq!(find(off, 0xffff_ffff_0031_0004), Some(0x31_0004));
    }

    #[test]
    fn a_cpu_of_32_bits_may_have_wide_entries() {
        let ram = memory(&[
            (0x1020 + 8 * 3, 0x2001),
            (0x2000 + 8 * 5, 0x1_0020_0083), // 2 MiB
            (0x2000 + 8 * 6, 0x3003),
            (0x3000 + 8 * 7, 0x5_6003),
        ]);
        let tables = Tables {
            cr3: 0x1020,
            is_long: false,
            ..FOUR
        };
        let find = |linear| translate(ram.memory(), tables, linear).map(|found| found.0);
        assert_eq!(find(0xc0a0_0042), Some(0x1_0020_0042));
        assert_eq!(find(0xc0c0_7fff), Some(0x5_6fff));
        assert_eq!(find(0x00c0_7fff), None);
    }
}

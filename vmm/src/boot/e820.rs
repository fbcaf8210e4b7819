//! The memory map that a kernel is told: where RAM is, and which places it must keep its hands off.
//!
//! ECAM must be listed as reserved, or Linux refuses to use it early ("not reserved in E820").

use linux_loader::bootparam::boot_e820_entry;
use linux_loader::loader::elf::start_info::hvm_memmap_table_entry;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::layout::{self, Range};

/// Address range types (ACPI 6.5 §15.1); PVH uses the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// One range of the map (ACPI 6.5 §15.2, Address Range Descriptor Structure).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange {
    pub(super) range: Range,
    pub(super) kind: Kind,
}

/// The map of a guest with this RAM, in order of address.
pub(super) fn memory_map(memory: &GuestMemoryMmap) -> Vec<AddressRange> {
    let blocks = memory.iter().map(|block| {
        let start = block.start_addr().0;
        Range::new(start, start + block.len())
    });
    around_holes(blocks)
}

/// The blocks of RAM and what is reserved in and between them. The first begins at 0 and ends below the
/// holes of 32 bits.
fn around_holes(mut blocks: impl Iterator<Item = Range>) -> Vec<AddressRange> {
    let ram = |range| AddressRange {
        range,
        kind: Kind::Ram,
    };
    let reserved = |range| AddressRange {
        range,
        kind: Kind::Reserved,
    };
    // VGA's memory, between RAM and the firmware, is not named: what is not named is no RAM.
    let low_end = blocks.next().map_or(0, |low| low.end().0);
    let mut map = vec![
        ram(Range::new(0, layout::CONVENTIONAL_END.0)),
        reserved(layout::FIRMWARE),
        ram(Range::new(
            layout::HIGH_MEMORY.0,
            low_end.max(layout::HIGH_MEMORY.0),
        )),
        reserved(layout::ECAM),
        reserved(layout::KVM_PAGES),
    ];
    map.extend(blocks.map(ram));
    map.retain(|entry| entry.range.len > 0);
    map
}

impl From<AddressRange> for boot_e820_entry {
    fn from(AddressRange { range, kind }: AddressRange) -> Self {
        Self {
            addr: range.start.0,
            size: range.len,
            r#type: kind as u32,
        }
    }
}

impl From<AddressRange> for hvm_memmap_table_entry {
    fn from(AddressRange { range, kind }: AddressRange) -> Self {
        Self {
            addr: range.start.0,
            size: range.len,
            type_: kind as u32,
            reserved: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The map of RAM that fills these ranges.
    fn map_of(blocks: &[(u64, u64)]) -> Vec<AddressRange> {
        around_holes(blocks.iter().map(|&(start, end)| Range::new(start, end)))
    }

    fn ram_of(blocks: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let map = map_of(blocks).into_iter().filter(|entry| entry.kind == Kind::Ram);
        map.map(|entry| (entry.range.start.0, entry.range.end().0))
            .collect()
    }

    #[test]
    fn small_memory_has_two_pieces() {
        assert_eq!(ram_of(&[(0, 64 << 20)]), [(0, 0x9_fc00), (0x10_0000, 64 << 20)]);
    }

    #[test]
    fn large_memory_goes_on_above_4_gib() {
        assert_eq!(
            ram_of(&[(0, 3 << 30), (4 << 30, 5 << 30)]),
            [(0, 0x9_fc00), (0x10_0000, 3 << 30), (4 << 30, 5 << 30)]
        );
    }

    #[test]
    fn ecam_and_acpi_tables_are_reserved() {
        let map = map_of(&[(0, 64 << 20)]);
        let kind_of = |range| {
            map.iter()
                .find(|entry| entry.range == range)
                .map(|entry| entry.kind)
        };
        assert_eq!(kind_of(layout::ECAM), Some(Kind::Reserved));
        assert_eq!(kind_of(layout::FIRMWARE), Some(Kind::Reserved));
    }

    #[test]
    fn ranges_are_sorted_and_disjoint() {
        let map = map_of(&[(0, 3 << 30), (1 << 40, 2 << 40)]);
        assert!(
            map.windows(2)
                .all(|pair| pair[0].range.end() <= pair[1].range.start)
        );
    }
}

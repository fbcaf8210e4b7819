//! What kind of memory is where, as a kernel is told: RAM, and the places it must keep its hands off.
//!
//! ECAM must be listed as reserved, or Linux refuses to use it early ("not reserved in E820").

use linux_loader::bootparam::boot_e820_entry;
use linux_loader::loader::elf::start_info::hvm_memmap_table_entry;

use crate::layout::{self, Range};

/// Address range types (ACPI 6.5 §15.1); PVH uses the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// One range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) range: Range,
    pub(super) kind: Kind,
}

/// The map of a guest with `memory_bytes` of RAM, in order of address.
pub(super) fn memory_map(memory_bytes: u64) -> Vec<Entry> {
    let ram = |range| Entry {
        range,
        kind: Kind::Ram,
    };
    let reserved = |range| Entry {
        range,
        kind: Kind::Reserved,
    };
    let low_end = layout::low_ram_end(memory_bytes).0;
    let high_end = layout::ram_end(memory_bytes).0;
    let mut map = vec![
        ram(Range::new(0, layout::CONVENTIONAL_END.0)),
        reserved(layout::FIRMWARE),
        ram(Range::new(
            layout::HIGH_MEMORY.0,
            low_end.max(layout::HIGH_MEMORY.0),
        )),
        reserved(layout::ECAM),
        reserved(layout::KVM_PAGES),
        ram(Range::new(layout::HIGH_RAM.0, high_end)),
    ];
    map.retain(|entry| entry.range.len > 0);
    map
}

impl From<Entry> for boot_e820_entry {
    fn from(Entry { range, kind }: Entry) -> Self {
        Self {
            addr: range.start.0,
            size: range.len,
            r#type: kind as u32,
        }
    }
}

impl From<Entry> for hvm_memmap_table_entry {
    fn from(Entry { range, kind }: Entry) -> Self {
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

    fn ram_of(memory_bytes: u64) -> Vec<(u64, u64)> {
        let map = memory_map(memory_bytes)
            .into_iter()
            .filter(|entry| entry.kind == Kind::Ram);
        map.map(|entry| (entry.range.start.0, entry.range.end().0))
            .collect()
    }

    #[test]
    fn small_memory_has_two_pieces() {
        assert_eq!(ram_of(64 << 20), [(0, 0x9_fc00), (0x10_0000, 64 << 20)]);
    }

    #[test]
    fn large_memory_goes_on_above_4_gib() {
        assert_eq!(
            ram_of(4 << 30),
            [(0, 0x9_fc00), (0x10_0000, 3 << 30), (4 << 30, 5 << 30)]
        );
    }

    #[test]
    fn ecam_and_acpi_tables_are_reserved() {
        let map = memory_map(64 << 20);
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
        let map = memory_map(16 << 30);
        assert!(
            map.windows(2)
                .all(|pair| pair[0].range.end() <= pair[1].range.start)
        );
    }
}

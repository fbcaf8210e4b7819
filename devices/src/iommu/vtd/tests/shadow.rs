use super::guest::*;
use crate::address_space::MapListener;
use crate::dma::{Access, Renumbered};
use crate::region::MemoryKind;
use crate::testing::{DmaCall, Registers};

const RW: u64 = READ | WRITE;

/// Pages from 0x10_0000 on, mapped to 0x20_0000 on, as one guest mapping.
fn with_pages(count: u64) -> Guest {
    let mut guest = Guest::translating();
    for page in 0..count {
        guest.set_page(0x10_0000 + page * 0x1000, (0x20_0000 + page * 0x1000) | RW);
    }
    guest.invalidate_pages(0x10_0000, 9);
    guest.domain.take_calls();
    guest
}

#[test]
fn new_contiguous_pages_are_one_call() {
    let mut guest = Guest::translating();
    for page in 0..512 {
        guest.set_page(0x20_0000 + page * 0x1000, (0x40_0000 + page * 0x1000) | RW);
    }
    guest.invalidate_pages(0x20_0000, 9);
    assert_eq!(guest.domain.take_calls(), [DmaCall::Map(0x20_0000, 0x20_0000)]);
}

#[test]
fn rights_reach_the_host_as_they_are() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0x20_0000 | READ);
    guest.set_page(0x2000, 0x20_1000 | WRITE);
    guest.invalidate_pages(0, 2);
    let access: Vec<_> = guest.domain.mappings().iter().map(|m| m.access).collect();
    assert_eq!(access, [Access::READ, Access::WRITE]);
}

#[test]
fn neighbours_in_a_rounded_invalidation_are_left_alone() {
    let mut guest = with_pages(4);
    guest.set_page(0x10_5000, 0x30_0000 | RW);
    guest.invalidate_pages(0x10_0000, 3);
    assert_eq!(guest.domain.take_calls(), [DmaCall::Map(0x10_5000, 0x1000)]);
}

#[test]
fn an_invalidation_that_changes_nothing_costs_nothing() {
    let mut guest = with_pages(4);
    guest.invalidate(&[pages(0x10_0000, 9), IOTLB_GLOBAL, CONTEXT_GLOBAL]);
    assert_eq!(guest.domain.take_calls(), []);
}

#[test]
fn a_split_maps_what_is_left_again() {
    let mut guest = with_pages(4);
    guest.set_page(0x10_1000, 0);
    guest.invalidate_pages(0x10_1000, 0);
    assert_eq!(
        guest.domain.take_calls(),
        [
            DmaCall::Unmap(0x10_0000, 0x4000),
            DmaCall::Map(0x10_0000, 0x1000),
            DmaCall::Map(0x10_2000, 0x2000)
        ]
    );
    let stats = guest.vtd.stats().devices[0].shadow;
    assert_eq!((stats.splits, stats.split_latency.buckets().count()), (1, 1));
}

#[test]
fn neighbouring_deletions_are_one_call() {
    let mut guest = Guest::translating();
    for page in [0, 2, 4] {
        guest.set_page(0x10_0000 + page * 0x1000, (0x20_0000 + page * 0x1000) | RW);
    }
    guest.invalidate_pages(0x10_0000, 3);
    guest.domain.take_calls();
    for page in [0, 2, 4] {
        guest.set_page(0x10_0000 + page * 0x1000, 0);
    }
    guest.invalidate_pages(0x10_0000, 3);
    assert_eq!(guest.domain.take_calls(), [DmaCall::Unmap(0x10_0000, 0x5000)]);
}

#[test]
fn a_target_that_changes_is_deleted_first() {
    let mut guest = with_pages(1);
    guest.set_page(0x10_0000, 0x30_0000 | RW);
    guest.invalidate_pages(0x10_0000, 0);
    let calls = [DmaCall::Unmap(0x10_0000, 0x1000), DmaCall::Map(0x10_0000, 0x1000)];
    assert_eq!(guest.domain.take_calls(), calls);
    assert_eq!(guest.mappings(), [(0x10_0000, 0x30_0000, 0x1000)]);
}

/// A device must not keep access through a table that is gone (QEMU 36d2d52bdb).
#[test]
fn a_hole_in_an_upper_level_unmaps_what_was_below() {
    let mut guest = with_pages(4);
    let upper = guest.entry(0x10_0000, 3);
    guest.store(upper, 0);
    guest.invalidate_pages(0x10_1000, 0);
    assert!(guest.mappings().is_empty());
}

#[test]
fn an_entry_that_becomes_reserved_or_unreadable_is_unmapped() {
    for value in [0x20_0000 | RW | 1 << 62, 0x7_ffff_f000 | RW] {
        let mut guest = with_pages(1);
        guest.set_page(0x10_0000, value);
        guest.invalidate_pages(0x10_0000, 0);
        assert!(guest.mappings().is_empty(), "{value:#x}");
    }
}

#[test]
fn a_large_page_replaces_small_ones_and_back() {
    let mut guest = Guest::translating();
    guest.set_page(0x20_0000, 0x40_0000 | RW);
    guest.invalidate_pages(0x20_0000, 0);
    let entry = guest.entry(0x20_0000, 2);
    guest.store(entry, 0x40_0000 | LARGE | RW);
    guest.invalidate_pages(0x20_3000, 0);
    let kept = [(0x20_0000, 0x40_0000, 0x1000), (0x20_1000, 0x40_1000, 0x1f_f000)];
    assert_eq!(
        guest.mappings(),
        kept,
        "what translates as before is not disturbed"
    );
    guest.set_page(0x20_1000, 0x50_0000 | RW);
    guest.invalidate_pages(0x20_0000, 9);
    assert_eq!(guest.mappings(), [(0x20_1000, 0x50_0000, 0x1000)]);
}

#[test]
fn the_interrupt_window_is_never_mapped() {
    let mut guest = Guest::translating();
    let entry = guest.entry(0xfec0_0000, 2);
    guest.store(entry, LARGE | RW);
    guest.store(entry + 8, LARGE | RW);
    guest.invalidate_pages(0xfec0_0000, 10);
    let expected = [(0xfec0_0000, 0, 0x20_0000), (0xfef0_0000, 0x10_0000, 0x10_0000)];
    assert_eq!(guest.mappings(), expected);
}

#[test]
fn a_page_over_the_end_of_ram_is_mapped_as_far_as_ram_goes() {
    let mut guest = Guest::translating();
    let entry = guest.entry(0x4000_0000, 3);
    guest.store(entry, LARGE | RW);
    guest.invalidate_pages(0x4000_0000, 18);
    assert_eq!(guest.mappings(), [(0x4000_0000, 0, RAM)]);
}

#[test]
fn nothing_is_pinned_before_the_device_is_bus_master() {
    let guest = Guest::new();
    assert!(guest.mappings().is_empty());
    assert!(guest.gate.set_bus_master(true));
    assert_eq!(guest.mappings(), [(0, 0, RAM)], "complete when the call returns");
    assert!(guest.gate.set_bus_master(false));
    assert_eq!(guest.mappings(), [(0, 0, RAM)]);
}

#[test]
fn a_device_goes_through_all_states() {
    let mut guest = Guest::new();
    assert!(guest.gate.set_bus_master(true));
    guest.set_page(0x1000, 0x20_0000 | RW);
    guest.start();
    assert_eq!(guest.mappings(), [(0x1000, 0x20_0000, 0x1000)]);
    guest.set_context(1 | 2 << 2, u64::from(DOMAIN) << 8);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    assert_eq!(guest.mappings(), [(0, 0, RAM)]);
    guest.set_context(0, 0);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    assert!(guest.mappings().is_empty());
    guest.vtd.write32(GCMD, QIE);
    assert_eq!(guest.mappings(), [(0, 0, RAM)]);
}

#[test]
fn pass_through_without_bus_mastering_pins_nothing() {
    let mut guest = Guest::translating();
    guest.set_context(1 | 2 << 2, u64::from(DOMAIN) << 8);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    assert!(guest.mappings().is_empty());
}

/// Linux gives domain 0 with the entry of a device that was not present before.
#[test]
fn a_device_selective_flush_with_domain_0_attaches() {
    let mut guest = Guest::translating();
    guest.set_context(0, 0);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    guest.set_page(0x1000, 0x20_0000 | RW);
    guest.set_context(TABLE | 1, 2 | 9 << 8);
    guest.invalidate(&[[u64::from(DEVICE) << 32 | 3 << 4 | 1, 0]]);
    assert_eq!(guest.mappings(), [(0x1000, 0x20_0000, 0x1000)]);
}

#[test]
fn function_masks_leave_bits_out() {
    for (source, mask, attaches) in [
        (DEVICE | 4, 1, true),
        (DEVICE | 2, 1, false),
        (DEVICE | 7, 3, true),
    ] {
        let mut guest = Guest::translating();
        guest.set_context(0, 0);
        guest.invalidate(&[CONTEXT_GLOBAL]);
        guest.set_page(0x1000, 0x20_0000 | RW);
        guest.set_context(TABLE | 1, 2 | u64::from(DOMAIN) << 8);
        guest.invalidate(&[[mask << 48 | u64::from(source) << 32 | 3 << 4 | 1, 0]]);
        assert_eq!(!guest.mappings().is_empty(), attaches, "{source:#x} {mask}");
    }
}

#[test]
fn a_domain_number_that_is_used_again_names_the_new_table() {
    let mut guest = with_pages(1);
    let other = 0x30_0000;
    guest.set_context(other | 1, 2 | u64::from(DOMAIN) << 8);
    guest.invalidate(&[[u64::from(DOMAIN) << 16 | 2 << 4 | 1, 0]]);
    assert!(guest.mappings().is_empty(), "the new table is empty");
    guest.set_page(0x10_0000, 0x50_0000 | RW);
    guest.invalidate_pages(0x10_0000, 0);
    assert!(guest.mappings().is_empty(), "the old table no longer counts");
}

#[test]
fn other_domains_are_not_touched() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0x20_0000 | RW);
    guest.invalidate(&[[9 << 16 | 3 << 4 | 2, 0x1000]]);
    assert!(guest.mappings().is_empty());
}

#[test]
fn a_refused_map_leaves_a_hole_and_recovers() {
    let mut guest = with_pages(1);
    guest.domain.set_refused(true);
    guest.set_page(0x18_0000, 0x30_0000 | RW);
    guest.invalidate_pages(0x18_0000, 0);
    assert_eq!(guest.mappings(), [(0x10_0000, 0x20_0000, 0x1000)]);
    guest.domain.set_refused(false);
    guest.set_page(0x10_0000, 0);
    guest.invalidate_pages(0x10_0000, 0);
    assert_eq!(
        guest.mappings(),
        [(0x18_0000, 0x30_0000, 0x1000)],
        "room was made"
    );
    assert_eq!(guest.vtd.stats().devices[0].shadow.failed_maps, 1);
}

#[test]
fn a_refused_unmap_is_kept_in_the_book_and_tried_again() {
    let mut guest = with_pages(1);
    guest.domain.set_stuck(true);
    guest.set_page(0x10_0000, 0x30_0000 | RW);
    guest.invalidate_pages(0x10_0000, 0);
    assert_eq!(guest.mappings(), [(0x10_0000, 0x20_0000, 0x1000)]);
    guest.domain.set_stuck(false);
    guest.invalidate_pages(0x10_0000, 0);
    assert_eq!(guest.mappings(), [(0x10_0000, 0x30_0000, 0x1000)]);
}

#[test]
fn memory_that_leaves_the_map_leaves_the_domain_first() {
    let mut guest = with_pages(2);
    guest.vtd.unmap(&slot(0, RAM, HOST, MemoryKind::Ram));
    assert!(guest.mappings().is_empty());
    guest.set_page(0x10_0000, 0x30_0000 | RW);
    guest.invalidate_pages(0x10_0000, 0);
    assert!(guest.mappings().is_empty());
}

#[test]
fn a_full_sync_keeps_pages_apart_that_may_be_unmapped_apart() {
    let mut guest = Guest::new();
    for page in 0..3 {
        guest.set_page(0x10_0000 + page * 0x1000, (0x20_0000 + page * 0x1000) | RW);
    }
    guest.start();
    assert_eq!(guest.mappings().len(), 3);
}

#[test]
fn small_pages_merge_up_to_2_mib() {
    let mut guest = Guest::translating();
    for page in 0..1024 {
        guest.set_page(0x10_0000 + page * 0x1000, (0x100_0000 + page * 0x1000) | RW);
    }
    guest.invalidate_pages(0, 11);
    let lens: Vec<_> = guest.mappings().iter().map(|(_, _, len)| *len).collect();
    assert_eq!(lens, [0x10_0000, 0x20_0000, 0x10_0000]);
}

#[test]
fn a_host_that_refuses_everything_is_not_asked_without_end() {
    let mut guest = Guest::translating();
    guest.domain.set_refused(true);
    for page in (0..512).step_by(2) {
        guest.set_page(page * 0x1000, 0x20_0000 | RW);
    }
    guest.invalidate_pages(0, 9);
    assert_eq!(guest.vtd.stats().devices[0].shadow.failed_maps, 16);
    guest.domain.set_refused(false);
    guest.invalidate(&[IOTLB_GLOBAL]);
    assert_eq!(guest.mappings().len(), 256);
}

/// Pages that are contiguous nowhere: each takes an entry of the host.
fn scatter(guest: &mut Guest, pages: std::ops::Range<u64>) {
    for page in pages {
        guest.set_page(0x10_0000 + page * 0x1000, (0x20_0000 + (page ^ 1) * 0x1000) | RW);
        guest.invalidate_pages(0x10_0000 + page * 0x1000, 0);
    }
}

#[test]
fn a_full_domain_leaves_the_rest_unmapped_and_takes_it_as_room_is_made() {
    let mut guest = Guest::translating();
    guest.domain.set_limit(64);
    scatter(&mut guest, 0..100);
    assert_eq!(guest.mappings().len(), 64);
    let stats = guest.vtd.stats().devices[0].shadow;
    assert_eq!(
        (stats.mappings, stats.most_mappings, stats.failed_maps),
        (64, 64, 36)
    );
    // Each page that goes makes room for one that had none.
    for page in 0..36 {
        guest.set_page(0x10_0000 + page * 0x1000, 0);
        guest.invalidate_pages(0x10_0000 + page * 0x1000, 0);
        assert_eq!(guest.mappings().len(), 64);
    }
    let first = guest.mappings().first().map(|(iova, ..)| *iova);
    assert_eq!(first, Some(0x10_0000 + 36 * 0x1000), "all that is left is mapped");
}

#[test]
fn more_failures_than_are_kept_apart_recover_too() {
    let mut guest = Guest::translating();
    guest.domain.set_limit(16);
    scatter(&mut guest, 0..400);
    guest.domain.set_limit(400);
    guest.set_page(0x10_0000, 0);
    guest.invalidate_pages(0x10_0000, 0);
    assert_eq!(guest.mappings().len(), 399);
}

#[test]
fn memory_that_cannot_be_locked_is_tried_again_when_a_device_is_moved() {
    let mut guest = Guest::new();
    guest.domain.set_refused(true);
    assert!(guest.gate.set_bus_master(true));
    assert!(guest.mappings().is_empty());
    guest.domain.set_refused(false);
    guest.start();
    guest.vtd.write32(GCMD, QIE);
    assert_eq!(guest.mappings(), [(0, 0, RAM)]);
}

#[test]
fn rights_that_change_are_changed() {
    let mut guest = with_pages(1);
    guest.set_page(0x10_0000, 0x20_0000 | READ);
    guest.invalidate_pages(0x10_0000, 0);
    let calls = [DmaCall::Unmap(0x10_0000, 0x1000), DmaCall::Map(0x10_0000, 0x1000)];
    assert_eq!(guest.domain.take_calls(), calls);
    assert_eq!(guest.domain.mappings()[0].access, Access::READ);
}

/// A guest that gives a bridge another bus number writes the device's entry there, and says so.
#[test]
fn a_device_is_followed_to_another_bus() {
    let mut guest = with_pages(1);
    let contexts = 0x40_0000;
    guest.requester.bus.set(7);
    guest.store(0x1000 + 7 * 16, contexts | 1);
    guest.store(contexts, 0x41_0000 | 1);
    guest.store(contexts + 8, 2 | 9 << 8);
    guest.invalidate(&[[0x0700 << 32 | 3 << 4 | 1, 0]]);
    assert!(guest.mappings().is_empty(), "the table on the new bus is empty");
    guest.invalidate(&[[u64::from(DEVICE) << 32 | 3 << 4 | 1, 0]]);
    assert!(
        guest.mappings().is_empty(),
        "the entry on the old bus is nobody's"
    );
    assert_eq!(guest.vtd.stats().devices[0].requester.0, 0x0700);
}

#[test]
fn what_a_device_reaches_follows_the_live_bus_at_once() {
    let guest = with_pages(1);
    guest.requester.bus.set(7);
    let _none = guest.vtd.renumbered();
    assert!(guest.mappings().is_empty(), "there is no entry on the new bus");
    guest.requester.bus.set((DEVICE >> 8) as u8);
    let _none = guest.vtd.renumbered();
    assert_eq!(guest.mappings().len(), 1);
}

/// A context entry of the old number may be taken away without a word about the new one.
#[test]
fn a_device_on_another_bus_loses_what_its_old_entry_gave() {
    let mut guest = with_pages(1);
    guest.requester.bus.set(2);
    guest.set_context(0, 0);
    let old_device = [u64::from(DEVICE) << 32 | 3 << 4 | 1, 0];
    guest.invalidate(&[old_device, IOTLB_GLOBAL]);
    assert_eq!(guest.mappings(), []);
}

/// 512 large pages of 1 GiB that all lead to the same 64 MiB.
#[test]
fn memory_is_not_mapped_without_end_at_one_address_after_the_other() {
    let mut guest = Guest::translating();
    let first = guest.entry(0x80_0000_0000, 3);
    for at in 0..512 {
        guest.store(first + at * 8, LARGE | RW);
    }
    guest.invalidate(&[IOTLB_GLOBAL]);
    let shadow = guest.vtd.stats().devices[0].shadow;
    assert_eq!(shadow.bytes, 16 << 30);
    assert!(shadow.failed_maps > 0 && shadow.short_walks == 0);
    guest.store(first, 0);
    guest.invalidate_pages(0x80_0000_0000, 18);
    let shadow = guest.vtd.stats().devices[0].shadow;
    assert_eq!(shadow.bytes, 16 << 30, "another takes the room");
}

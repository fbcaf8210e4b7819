use proptest::prelude::*;

use super::guest::*;
use crate::iommu::vtd::{RemappingRouter, Source};
use crate::irq::MsiRouter;
use crate::testing::Registers;

#[test]
fn a_table_that_points_at_itself_ends() {
    let mut guest = Guest::translating();
    for at in 0..512 {
        guest.store(TABLE + at * 8, TABLE | READ | WRITE);
    }
    guest.invalidate(&[IOTLB_GLOBAL]);
    assert!(guest.vtd.stats().devices[0].shadow.mappings < 1 << 19);
}

#[test]
fn tables_and_rings_at_the_end_of_all_addresses() {
    let guest = Guest::new();
    for register in [0x20, 0x90, 0xb8] {
        guest.vtd.write64(register, !0xc00);
    }
    guest.vtd.write32(GCMD, SRTP | SIRTP | TE | IRE);
    guest.vtd.write32(GCMD, SRTP | SIRTP | TE | IRE | QIE);
    guest.vtd.write64(0x88, u64::MAX);
}

/// As with a table that maps more than can be followed.
#[test]
fn a_device_whose_budget_is_used_up_reaches_nothing_until_the_next_write() {
    let mut guest = Guest::translating();
    guest.set_page(0x5000, 0x20_0000 | READ | WRITE);
    guest.invalidate_pages(0x5000, 0);
    guest.vtd.lock().dma.set_budget(0);
    guest.invalidate(&[IOTLB_GLOBAL]);
    assert!(guest.mappings().is_empty());
    assert_eq!(guest.vtd.stats().devices[0].shadow.short_walks, 1);
    guest.vtd.lock().dma.set_budget(1 << 20);
    guest.invalidate(&[IOTLB_GLOBAL]);
    assert_eq!(guest.mappings(), [(0x5000, 0x20_0000, 0x1000)]);
}

/// The next change makes up for it, wherever it is.
#[test]
fn what_a_short_walk_left_out_comes_back_with_another_change() {
    let mut guest = Guest::translating();
    guest.set_page(0x5000, 0x20_0000 | READ | WRITE);
    guest.set_page(0x9000, 0x30_0000 | READ | WRITE);
    guest.invalidate_pages(0, 4);
    guest.vtd.lock().dma.set_budget(0);
    guest.invalidate_pages(0x8000, 1);
    guest.vtd.lock().dma.set_budget(1 << 20);
    assert_eq!(guest.mappings(), [(0x5000, 0x20_0000, 0x1000)]);
    guest.set_page(0x5000, 0);
    guest.invalidate_pages(0x5000, 0);
    assert_eq!(guest.mappings(), [(0x9000, 0x30_0000, 0x1000)]);
}

/// A driver that switches MSI-X on and off, and invalidates nothing.
#[test]
fn routes_that_are_gone_are_forgotten() {
    let guest = Guest::translating();
    let router = RemappingRouter::new(guest.vtd.clone(), Source::Function(guest.requester.clone()));
    let kept = router.route().expect("a route");
    for _ in 0..200 {
        router.route().expect("a route");
    }
    assert!(guest.vtd.lock().interrupts.kept() < 16);
    assert_eq!(guest.vtd.stats().routes, 1);
    drop(kept);
}

proptest! {
    #[test]
    fn no_descriptor_panics(descriptors in proptest::collection::vec(any::<[u64; 2]>(), 1..100)) {
        let mut guest = Guest::translating();
        guest.submit(&descriptors);
        guest.vtd.write32(FSTS, 0x10);
    }

    #[test]
    fn plausible_descriptors_never_panic(
        descriptors in proptest::collection::vec((1u64..6, any::<u64>(), any::<u64>()), 1..100),
    ) {
        let mut guest = Guest::translating();
        for (kind, low, high) in descriptors {
            guest.submit(&[[kind | low & 0x3ff_ffff_0030, high & 0xffff_ffff_f01f]]);
            guest.vtd.write32(FSTS, 0x10);
        }
    }

    #[test]
    fn random_tables_never_reach_outside_ram(entries in proptest::collection::vec((0u64..0x4000, any::<u64>()), 1..200)) {
        let mut guest = Guest::translating();
        for (at, value) in entries {
            guest.store(TABLE + at / 8 * 8, value & 0x7f_ffff | value >> 40 & 0x83);
        }
        guest.invalidate(&[IOTLB_GLOBAL]);
        for (_, target, len) in guest.mappings() {
            prop_assert!(target + len <= RAM);
        }
    }
}

//! Two devices: each with its own domain on the host, wherever the guest puts them.

use std::sync::Arc;

use super::guest::*;
use crate::address_space::MapListener;
use crate::dma::{BusMaster, Domain};
use crate::iommu::vtd::Vtd;
use crate::region::MemoryKind;
use crate::testing::{FakeDomain, Registers};

const OTHER_DEVICE: u64 = 0x0200;
const OTHER_CONTEXTS: u64 = 0x6000;
const RW: u64 = READ | WRITE;

struct Pair {
    guest: Guest,
    other: Arc<FakeDomain>,
    other_gate: Arc<dyn BusMaster>,
}

/// The second device has a context with the same table, under the domain number `domain`.
fn pair(domain: u64) -> Pair {
    let mut guest = Guest::new();
    let other = FakeDomain::new();
    let requester = Guest::requester_of(OTHER_DEVICE);
    let devices = vec![
        (guest.requester.clone(), guest.domain.clone() as Arc<dyn Domain>),
        (requester, other.clone() as Arc<dyn Domain>),
    ];
    guest.vtd = Vtd::new(CONFIG, guest.memory.clone(), guest.router.clone(), devices);
    guest.gate = guest.vtd.bus_master(0);
    let ram = slot(0, RAM, HOST, MemoryKind::Ram);
    guest.vtd.map(&ram).expect("RAM");
    guest.store(0x1020, OTHER_CONTEXTS | 1);
    guest.store(OTHER_CONTEXTS, TABLE | 1);
    guest.store(OTHER_CONTEXTS + 8, 2 | domain << 8);
    guest.start();
    Pair {
        other_gate: guest.vtd.bus_master(1),
        guest,
        other,
    }
}

#[test]
fn one_invalidation_of_a_domain_reaches_all_its_devices() {
    let mut pair = pair(u64::from(DOMAIN));
    pair.guest.set_page(0x1000, 0x20_0000 | RW);
    pair.guest.invalidate_pages(0x1000, 0);
    assert_eq!(pair.guest.domain.mappings(), pair.other.mappings());
    assert_eq!(pair.other.mappings().len(), 1);
}

#[test]
fn a_table_under_two_numbers_follows_either() {
    let mut pair = pair(9);
    pair.guest.set_page(0x1000, 0x20_0000 | RW);
    pair.guest.invalidate_pages(0x1000, 0);
    assert_eq!(pair.other.mappings().len(), 1);
    pair.guest.set_page(0x1000, 0);
    pair.guest.invalidate(&[[9 << 16 | 3 << 4 | 2, 0x1000]]);
    assert!(pair.guest.mappings().is_empty());
}

#[test]
fn a_device_that_leaves_keeps_nothing_and_takes_nothing_along() {
    let mut pair = pair(u64::from(DOMAIN));
    pair.guest.set_page(0x1000, 0x20_0000 | RW);
    pair.guest.invalidate_pages(0x1000, 0);
    pair.guest.store(OTHER_CONTEXTS, 0);
    pair.guest.invalidate(&[[OTHER_DEVICE << 32 | 3 << 4 | 1, 0]]);
    assert!(pair.other.mappings().is_empty());
    assert_eq!(pair.guest.mappings().len(), 1);
}

#[test]
fn only_the_bus_master_is_let_at_memory() {
    let pair = pair(u64::from(DOMAIN));
    pair.guest.vtd.write32(GCMD, QIE);
    assert!(pair.other_gate.set_bus_master(true));
    assert!(pair.guest.mappings().is_empty());
    assert_eq!(pair.other.mappings().len(), 1);
}

#[test]
fn peers_reach_bars_while_they_are_in_the_map() {
    let mut pair = pair(u64::from(DOMAIN));
    let bar = slot(0xc000_0000, 0x4000, HOST + 0x1000_0000, MemoryKind::Device);
    pair.guest.set_page(0x1000, 0xc000_1000 | RW);
    pair.guest.invalidate_pages(0x1000, 0);
    assert!(pair.guest.mappings().is_empty());
    pair.guest.vtd.map(&bar).expect("free");
    assert_eq!(pair.guest.mappings(), [(0x1000, 0x1000_1000, 0x1000)]);
    pair.guest.vtd.unmap(&bar);
    assert!(pair.guest.mappings().is_empty() && pair.other.mappings().is_empty());
}

#[test]
fn a_page_over_two_slots_is_split_between_them() {
    let mut guest = Guest::translating();
    let more = slot(RAM, 0x20_0000, HOST - 0x1000_0000, MemoryKind::Ram);
    guest.vtd.map(&more).expect("free");
    let entry = guest.entry(0x4000_0000, 3);
    guest.store(entry, LARGE | RW);
    guest.invalidate_pages(0x4000_0000, 0);
    let lens: Vec<_> = guest.domain.mappings().iter().map(|m| m.len_bytes).collect();
    assert_eq!(lens, [RAM, 0x20_0000]);
}

#[test]
fn a_device_that_was_unplugged_reaches_nothing_whatever_the_tables_say() {
    let mut pair = pair(u64::from(DOMAIN));
    pair.guest.set_page(0x1000, 0x20_0000 | RW);
    pair.guest.invalidate_pages(0x1000, 0);
    pair.guest.vtd.bus_master(1).leave();
    assert!(pair.other.mappings().is_empty());
    pair.guest.set_page(0x2000, 0x20_1000 | RW);
    pair.guest.invalidate_pages(0x2000, 0);
    assert!(pair.other_gate.set_bus_master(true));
    pair.guest.invalidate(&[[1 << 4 | 1, 0]]);
    assert!(pair.other.mappings().is_empty());
    assert_eq!(pair.guest.mappings().len(), 2, "the other device goes on");
}

#[test]
fn a_device_that_comes_is_let_at_what_its_tables_say_and_takes_the_place_of_one_that_left() {
    let mut pair = pair(u64::from(DOMAIN));
    pair.guest.set_page(0x1000, 0x20_0000 | RW);
    pair.guest.invalidate_pages(0x1000, 0);
    pair.guest.vtd.bus_master(1).leave();
    let come = |guest: &Guest| {
        let (domain, requester) = (FakeDomain::new(), Guest::requester_of(OTHER_DEVICE));
        let index = guest.vtd.attach(requester, domain.clone());
        (index, domain)
    };
    let (index, third) = come(&pair.guest);
    assert_eq!(index, 1);
    assert_eq!(third.mappings(), pair.guest.domain.mappings());
    assert!(
        pair.other_gate.set_bus_master(true),
        "the gate of the one that left"
    );
    assert!(pair.other.mappings().is_empty());
    let gate = pair.guest.vtd.bus_master(index);
    assert!(gate.set_bus_master(true));
    pair.guest.vtd.write32(GCMD, QIE);
    assert_eq!(third.mappings().len(), 1, "all RAM, which it masters");
    let (index, fourth) = come(&pair.guest);
    assert_eq!(index, 2);
    assert!(fourth.mappings().is_empty(), "no bus master yet");
}

/// As the chip of `sym53c8xx` does, which runs what its driver puts into its memory.
#[test]
fn a_device_alone_reaches_its_own_bar() {
    let mut guest = Guest::translating();
    let bar = slot(0xc000_0000, 0x4000, HOST + 0x1000_0000, MemoryKind::Device);
    guest.vtd.map(&bar).expect("free");
    guest.set_page(0x1000, 0xc000_1000 | RW);
    guest.invalidate_pages(0x1000, 0);
    assert_eq!(guest.mappings(), [(0x1000, 0x1000_1000, 0x1000)]);
    guest.vtd.unmap(&bar);
    assert!(guest.mappings().is_empty());
}

//! What one write may hold: however much a guest asks for at once, it is done in turns, and between them the lock is
//! free and the vCPU can be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::guest::*;
use crate::address_space::MapListener;
use crate::dma::Domain;
use crate::iommu::vtd::{RemappingRouter, Source, Vtd};
use crate::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use crate::region::MemoryKind;
use crate::region::{Device, Effect, Unfinished};
use crate::testing::{DmaCall, FakeDomain, FakeRouter, Registers};

const GIB: u64 = 1 << 30;
/// A ring of the largest size, which is 512 KiB, and how often four descriptors fit.
const LARGE_RING: u64 = 0x200_0000;
const LARGEST: u64 = 7;
const ROUNDS: u64 = 8191;
const TAIL: u64 = 0x88;
/// The context entry of the device.
const CONTEXT: u64 = 0x2000;
const PASS_THROUGH: u32 = 1 | 2 << 2;

/// Memory that none of the tables are in, so that there is more to map than the test has.
fn add_memory(guest: &Guest, bytes: u64) {
    let more = slot(4 * GIB, bytes, HOST + 4 * GIB, MemoryKind::Ram);
    guest.vtd.map(&more).expect("free");
}

/// A wait that writes `value` at `at`, which may be in a table.
fn status(at: u64, value: u32) -> [u64; 2] {
    [u64::from(value) << 32 | 1 << 5 | 5, at]
}

/// Fills the large ring with `round` over and over, and one wait at its end. Tells where the tail is to be.
fn fill(guest: &mut Guest, round: [[u64; 2]; 4]) -> u64 {
    let all = (0..ROUNDS).flat_map(|_| round).chain([status(STATUS, 1)]);
    let mut at = LARGE_RING;
    for [low, high] in all {
        guest.store(at, low);
        guest.store(at + 8, high);
        at += 16;
    }
    guest.vtd.write32(GCMD, 0);
    guest.vtd.write64(0x90, LARGE_RING | LARGEST);
    guest.vtd.write64(TAIL, 0);
    guest.vtd.write32(GCMD, QIE);
    at - LARGE_RING
}

fn rest(effect: Effect) -> Option<Arc<dyn Unfinished>> {
    match effect {
        Effect::More(_, rest) => Some(rest),
        _ => None,
    }
}

/// Writes the tail and goes on to the end; `check` looks at each turn.
fn run(guest: &Guest, tail: u64, mut check: impl FnMut()) -> u64 {
    let mut next = rest(guest.vtd.write(TAIL, &tail.to_le_bytes()));
    let mut turns = 1;
    check();
    while let Some(unfinished) = next {
        next = rest(unfinished.go_on());
        turns += 1;
        check();
    }
    turns
}

/// Bytes and calls of one turn.
fn cost(domain: &FakeDomain) -> (u64, u64) {
    let calls = domain.take_calls();
    let bytes = calls.iter().map(|call| match call {
        DmaCall::Map(_, len) | DmaCall::Unmap(_, len) => *len,
    });
    (bytes.sum(), calls.len() as u64)
}

fn assert_turn(domain: &FakeDomain) {
    let (bytes, calls) = cost(domain);
    assert!(bytes <= GIB && calls <= 1024, "{bytes:#x} bytes in {calls} calls");
}

#[test]
fn a_queue_that_rewrites_a_context_entry_pins_at_most_a_gibibyte_a_turn() {
    let mut guest = Guest::translating();
    add_memory(&guest, 2 * GIB);
    guest.set_context(0, 0);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    assert!(guest.gate.set_bus_master(true));
    let round = [
        status(CONTEXT, 0),
        CONTEXT_GLOBAL,
        status(CONTEXT, PASS_THROUGH),
        CONTEXT_GLOBAL,
    ];
    let tail = fill(&mut guest, round);
    guest.vtd.write32(GCMD, QIE | TE);
    guest.domain.take_calls();
    let turns = run(&guest, tail, || assert_turn(&guest.domain));
    assert!(turns > 2 * 2 * ROUNDS, "{turns} turns");
    assert_eq!(guest.load(STATUS) as u32, 1);
    assert_eq!(guest.mappings().len(), 3);
}

/// Counts changes of routes.
struct Counter {
    inner: Arc<dyn MsiRouter>,
    changes: Arc<AtomicU64>,
}

struct CountedRoute {
    inner: Arc<dyn MsiRoute>,
    changes: Arc<AtomicU64>,
}

impl MsiRouter for Counter {
    fn send(&self, _: MsiMessage) {}

    fn set_pin(&self, _: u8, _: Option<MsiMessage>) {}

    fn commit(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        let (inner, changes) = (self.inner.route()?, self.changes.clone());
        Ok(Arc::new(CountedRoute { inner, changes }))
    }
}

impl MsiRoute for CountedRoute {
    fn set(&self, _: Option<MsiMessage>) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn commit(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn event(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inner.event()
    }

    fn pending(&self) -> bool {
        false
    }

    fn discard(&self) -> bool {
        false
    }
}

#[test]
fn a_queue_that_rewrites_an_interrupt_entry_changes_at_most_1024_routes_a_turn() {
    let mut guest = Guest::new();
    let changes = Arc::new(AtomicU64::new(0));
    let router = Arc::new(Counter {
        inner: FakeRouter::new(),
        changes: changes.clone(),
    });
    let devices = vec![(guest.requester.clone(), guest.domain.clone() as Arc<dyn Domain>)];
    guest.vtd = Vtd::new(CONFIG, guest.memory.clone(), router, devices);
    guest.vtd.write64(0xb8, IRT | 7);
    guest.vtd.write32(GCMD, SIRTP);
    guest.vtd.write32(GCMD, IRE);
    let source = RemappingRouter::new(guest.vtd.clone(), Source::Function(guest.requester.clone()));
    let entry_0 = MsiMessage {
        address: 0xfee0_0010,
        data: 0,
    };
    let routes: Vec<_> = (0..64).map(|_| source.route().expect("a route")).collect();
    for route in &routes {
        set(&**route, Some(entry_0));
    }
    let round = [status(IRT, 0), [4, 0], status(IRT, 1), [4, 0]];
    let tail = fill(&mut guest, round);
    guest.vtd.write32(GCMD, QIE | IRE);
    changes.store(0, Ordering::Relaxed);
    let mut total = 0;
    run(&guest, tail, || {
        let now = changes.swap(0, Ordering::Relaxed);
        assert!(now <= 1024, "{now} routes");
        total += now;
    });
    // The entry was 0 before, so that the first of all changes nothing.
    assert_eq!(total, 64 * (2 * ROUNDS - 1));
}

/// A device that passes requests, with `bytes` of memory more, and a tail that blocks it.
fn blocked_by_one_write(bytes: u64) -> (Guest, Effect) {
    let mut guest = Guest::translating();
    add_memory(&guest, bytes);
    guest.set_context(u64::from(PASS_THROUGH), u64::from(DOMAIN) << 8);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    while !guest.gate.set_bus_master(true) {}
    guest.set_context(0, 0);
    let tail = guest.write_ring(&[CONTEXT_GLOBAL, status(STATUS, 0x77)]);
    let effect = guest.vtd.write(TAIL, &tail.to_le_bytes());
    (guest, effect)
}

#[test]
fn a_wait_completes_only_when_all_turns_before_it_are_done() {
    let (guest, effect) = blocked_by_one_write(2 * GIB);
    let mut next = rest(effect);
    assert!(next.is_some());
    while let Some(unfinished) = next {
        assert_ne!(guest.load(STATUS) as u32, 0x77);
        assert!(!guest.mappings().is_empty());
        next = rest(unfinished.go_on());
    }
    assert_eq!(guest.load(STATUS) as u32, 0x77);
    assert!(guest.mappings().is_empty());
}

#[test]
fn what_a_stopped_cpu_left_is_done_with_any_later_write() {
    let (guest, effect) = blocked_by_one_write(2 * GIB);
    drop(effect);
    guest.vtd.write32(0xa8, 0xfee0_0000);
    assert_eq!(guest.load(STATUS) as u32, 0x77);
    assert!(guest.mappings().is_empty());
}

#[test]
fn what_a_stopped_cpu_left_is_forgotten_at_a_reset() {
    let (guest, effect) = blocked_by_one_write(2 * GIB);
    drop(effect);
    guest.vtd.reset();
    assert!(guest.mappings().is_empty());
    guest.vtd.write32(0xa8, 0xfee0_0000);
    assert_ne!(guest.load(STATUS) as u32, 0x77);
}

#[test]
fn a_device_can_leave_between_two_turns() {
    let (guest, effect) = blocked_by_one_write(4 * GIB);
    guest.vtd.bus_master(0).leave();
    assert!(guest.mappings().is_empty());
    assert!(rest(rest(effect).expect("more").go_on()).is_none());
    assert_eq!(guest.load(STATUS) as u32, 0x77);
}

#[test]
fn memory_for_a_bus_master_is_mapped_a_gibibyte_a_call() {
    let guest = Guest::new();
    add_memory(&guest, 3 * GIB);
    while !guest.gate.set_bus_master(true) {
        assert_turn(&guest.domain);
    }
    assert_turn(&guest.domain);
    let bytes: u64 = guest.domain.mappings().iter().map(|m| m.len_bytes).sum();
    assert_eq!(bytes, RAM + 3 * GIB);
}

#[test]
fn translation_shows_as_on_when_memory_is_out_of_reach() {
    let mut guest = Guest::translating();
    guest.vtd.write32(GCMD, QIE);
    add_memory(&guest, 2 * GIB);
    while !guest.gate.set_bus_master(true) {}
    guest.set_page(0x1000, 0x20_0000 | READ);
    let mut next = rest(guest.vtd.write(GCMD, &(QIE | TE).to_le_bytes()));
    assert!(next.is_some());
    while let Some(unfinished) = next {
        assert_eq!(guest.vtd.read32(GSTS) & TE, 0);
        next = rest(unfinished.go_on());
    }
    assert_eq!(guest.vtd.read32(GSTS) & TE, TE);
    assert_eq!(guest.mappings(), [(0x1000, 0x20_0000, 0x1000)]);
}

/// Two commands one after the other, the second while the first is under way: neither is lost.
#[test]
fn a_command_that_comes_between_turns_is_done_after_what_is_under_way() {
    let (guest, effect) = blocked_by_one_write(2 * GIB);
    drop(effect);
    guest.vtd.write32(GCMD, 0);
    assert_eq!(guest.load(STATUS) as u32, 0x77);
    assert_eq!(guest.vtd.read32(GSTS) & (TE | QIE), 0);
}

/// Room first: a device that is moved may need what it had.
#[test]
fn all_turns_that_unmap_come_before_those_that_map() {
    let mut guest = Guest::translating();
    add_memory(&guest, 3 * GIB);
    guest.set_context(u64::from(PASS_THROUGH), u64::from(DOMAIN) << 8);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    while !guest.gate.set_bus_master(true) {}
    guest.domain.set_limit(guest.mappings().len());
    for page in 0..3 {
        guest.set_page(page << 12, (0x20_0000 + (page ^ 1) * 0x1000) | READ);
    }
    guest.set_context(TABLE | 1, 2 | u64::from(DOMAIN) << 8);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    assert_eq!(guest.mappings().len(), 3);
    assert_eq!(guest.vtd.stats().devices[0].shadow.failed_maps, 0);
}

/// 4 GiB of small pages, which one walk does not get through: a walk may begin in the middle of a mapping.
#[test]
fn a_walk_that_goes_on_inside_a_mapping_leaves_it_alone() {
    let mut guest = Guest::translating();
    for page in 0..512 {
        guest.set_page(page << 12, (0x20_0000 + page * 0x1000) | READ);
    }
    let leaves = guest.entry(0, 1);
    let middle = guest.entry(0, 2);
    let top = guest.entry(0, 3);
    for at in 0..512 {
        guest.store(middle + at * 8, leaves | READ);
    }
    for at in 0..4 {
        guest.store(top + at * 8, middle | READ);
    }
    // Each with its own start, so that its walks end elsewhere than those of a walk over all.
    for at in (0..4).rev() {
        guest.invalidate_pages(at * GIB + 0x1000, 0);
        guest.invalidate_pages(at * GIB, 18);
    }
    guest.domain.take_calls();
    guest.set_page(5 * GIB, 0x30_0000 | READ);
    guest.invalidate(&[IOTLB_GLOBAL]);
    assert_eq!(guest.domain.take_calls(), [DmaCall::Map(5 * GIB, 0x1000)]);
    assert_eq!(guest.vtd.stats().devices[0].shadow.failed_maps, 0);
}

/// Tables of four levels that lead to one empty one from everywhere, so that a walk costs all it may.
fn alias_tables(guest: &Guest) {
    let (level3, level2, level1) = (0x30_0000u64, 0x30_1000, 0x30_2000);
    for at in 0..512 {
        guest.store(TABLE + at * 8, level3 | 3);
        guest.store(level3 + at * 8, level2 | 3);
        guest.store(level2 + at * 8, level1 | 3);
        guest.store(level1 + at * 8, 0);
    }
}

#[test]
fn while_somebody_waits_for_what_was_asked_for_nothing_new_is_begun() {
    let mut guest = Guest::translating();
    alias_tables(&guest);
    let round = [IOTLB_GLOBAL, status(STATUS, 2), IOTLB_GLOBAL, status(STATUS, 3)];
    let tail = fill(&mut guest, round);
    guest.vtd.write32(GCMD, QIE | TE);
    let waits = |guest: &Guest| guest.vtd.stats().invalidations.waits;
    let begun = waits(&guest);
    let mut next = rest(guest.vtd.write(TAIL, &tail.to_le_bytes()));
    guest.vtd.waiting.fetch_add(1, Ordering::Relaxed);
    for _turn in 0..400 {
        let more = next.take().expect("the ring has thousands of rounds");
        next = rest(more.go_on());
    }
    assert!(waits(&guest) <= begun + 1, "{} waits", waits(&guest) - begun);
    guest.vtd.waiting.fetch_sub(1, Ordering::Relaxed);
    while waits(&guest) < begun + 3 {
        let more = next.take().expect("the ring has thousands of rounds");
        next = rest(more.go_on());
    }
}

#[test]
fn what_is_read_of_a_ring_is_obeyed_before_more_is_read() {
    let mut guest = Guest::translating();
    let (level3, level2, short, level1, other_root) =
        (0x30_0000u64, 0x30_1000, 0x30_4000, 0x30_2000, 0x30_3000);
    for at in 0..512 {
        let under_3 = match at {
            0..3 => level2 | 3,
            3 => short | 3,
            _ => 0,
        };
        guest.store(level3 + at * 8, under_3);
        guest.store(level2 + at * 8, level1 | 3);
        guest.store(short + at * 8, if at < 200 { level1 | 3 } else { 0 });
        guest.store(level1 + at * 8, 0);
        for root in [TABLE, other_root] {
            guest.store(root + at * 8, if at == 0 { level3 | 3 } else { 0 });
        }
    }
    fill(&mut guest, [CONTEXT_GLOBAL; 4]);
    for at in 0..32768u64 {
        guest.store(LARGE_RING + at * 16, CONTEXT_GLOBAL[0]);
        guest.store(LARGE_RING + at * 16 + 8, 0);
    }
    guest.vtd.write32(GCMD, QIE | TE);
    for round in 0..4 {
        // One CPU moves the device to another root and has it become bus master, which takes a part of a turn;
        // another one gives the ring new work.
        let root = if round % 2 == 0 { other_root } else { TABLE };
        guest.set_context(root | 1, 2 | u64::from(DOMAIN) << 8);
        let _more = guest.gate.set_bus_master(true);
        let head = guest.vtd.read64(0x80);
        let tail = (head + 0x8_0000 - 16) % 0x8_0000;
        let _more = guest.vtd.write(TAIL, &tail.to_le_bytes());
        let pending = guest.vtd.lock().queue.pending().contexts.len();
        assert_eq!(pending, 0, "round {round}");
    }
}

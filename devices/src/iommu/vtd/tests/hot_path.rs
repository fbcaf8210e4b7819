//! What a map and an unmap of the guest cost, from the write of the queue's tail to its status word: the
//! guest's CPU spins meanwhile, with interrupts off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use allocation_counter::measure;

use super::guest::*;
use crate::address_space::MapListener;
use crate::dma::{Access, Domain, DomainError, Iova};
use crate::iommu::vtd::Vtd;
use crate::region::{HostAddress, MemoryKind};

const BUFFER: u64 = 0x20_0000 | READ | WRITE;

/// Counts calls, each of which is an ioctl of a real domain, and allocates nothing itself.
#[derive(Default)]
struct Counter {
    calls: AtomicU64,
}

impl Domain for Counter {
    fn map(&self, _: Iova, _: HostAddress, _: u64, _: Access) -> Result<(), DomainError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn unmap(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn unmap_all(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A guest in use: `count` mappings stand, and tables and rings have been walked before.
fn busy(count: u64) -> (Guest, Arc<Counter>) {
    let mut guest = Guest::new();
    let counter = Arc::<Counter>::default();
    let devices = vec![(guest.requester.clone(), counter.clone() as Arc<dyn Domain>)];
    guest.vtd = Vtd::new(CONFIG, guest.memory.clone(), guest.router.clone(), devices);
    guest.vtd.map(&slot(0, RAM, HOST, MemoryKind::Ram)).expect("RAM");
    guest.start();
    for page in 0..count {
        guest.set_page(page * 0x2000, BUFFER);
        guest.invalidate_pages(page * 0x2000, 0);
    }
    map_and_unmap(&mut guest);
    (guest, counter)
}

/// As Linux's DMA API does it for one page, strictly: an invalidation and a wait each.
fn map_and_unmap(guest: &mut Guest) {
    for value in [BUFFER, 0] {
        guest.set_page(0x10_1000, value);
        ask(guest, &[pages(0x10_1000, 0)]);
    }
}

/// Writes descriptors and a wait, then the tail, without a vector.
fn ask(guest: &mut Guest, descriptors: &[[u64; 2]; 1]) {
    guest.submit(descriptors);
    guest.submit(&[[7 << 32 | 1 << 5 | 5, STATUS]]);
}

#[test]
fn a_pair_costs_two_calls_and_no_allocation() {
    let (mut guest, counter) = busy(5);
    let before = counter.calls.load(Ordering::Relaxed);
    let allocated = measure(|| {
        for _ in 0..100 {
            map_and_unmap(&mut guest);
        }
    });
    assert_eq!(counter.calls.load(Ordering::Relaxed) - before, 200);
    assert_eq!(allocated.count_total, 0);
}

/// The book of mappings is a B-tree, so a pair may split a full leaf and its root, and merge them again.
#[test]
fn a_pair_costs_at_most_two_nodes_of_the_book() {
    let most = (0..60).map(|count| {
        let (mut guest, _) = busy(count);
        measure(|| map_and_unmap(&mut guest)).count_total
    });
    assert!(most.max() <= Some(2));
}

#[test]
fn a_bulk_map_of_512_pages_costs_one_call_and_no_allocation() {
    let (mut guest, counter) = busy(5);
    let mut allocated = 0;
    for round in 0..3 {
        for page in 0..512 {
            guest.set_page(0x4000_0000 + page * 0x1000, (0x40_0000 + page * 0x1000) | READ);
        }
        let before = counter.calls.load(Ordering::Relaxed);
        let map = measure(|| ask(&mut guest, &[pages(0x4000_0000, 9)]));
        for page in 0..512 {
            guest.set_page(0x4000_0000 + page * 0x1000, 0);
        }
        let unmap = measure(|| ask(&mut guest, &[pages(0x4000_0000, 9)]));
        assert_eq!(counter.calls.load(Ordering::Relaxed) - before, 2, "round {round}");
        allocated = map.count_total + unmap.count_total;
    }
    assert_eq!(allocated, 0);
}

#[test]
fn an_invalidation_that_changes_nothing_costs_nothing() {
    let (mut guest, counter) = busy(5);
    let before = counter.calls.load(Ordering::Relaxed);
    ask(&mut guest, &[IOTLB_GLOBAL]);
    let allocated = measure(|| ask(&mut guest, &[IOTLB_GLOBAL]));
    assert_eq!(counter.calls.load(Ordering::Relaxed), before);
    assert_eq!(allocated.count_total, 0);
}

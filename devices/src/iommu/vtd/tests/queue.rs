use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::guest::*;
use crate::address_space::MapListener;
use crate::dma::{Access, Domain, DomainError, Iova};
use crate::iommu::vtd::Vtd;
use crate::region::{HostAddress, MemoryKind};
use crate::testing::{DmaCall, Registers};

const QUEUE_ERROR: u32 = 1 << 4;

#[test]
fn a_queue_with_work_starts_when_it_is_enabled() {
    let guest = Guest::new();
    guest.vtd.write64(0x90, RING);
    guest.store(RING, 7 << 32 | 1 << 5 | 5);
    guest.store(RING + 8, STATUS);
    guest.vtd.write32(0x88, 16);
    guest.vtd.write32(GCMD, QIE);
    assert_eq!(guest.load(STATUS), 7);
    assert_eq!(guest.vtd.read64(0x80), 16);
}

#[test]
fn enabling_without_a_ring_is_harmless() {
    let guest = Guest::new();
    guest.vtd.write32(GCMD, QIE);
    assert_eq!((guest.vtd.read32(GSTS), guest.vtd.read32(FSTS)), (QIE, 0));
}

#[test]
fn the_ring_wraps() {
    let mut guest = Guest::translating();
    for _ in 0..300 {
        guest.invalidate(&[IOTLB_GLOBAL]);
    }
    assert_eq!(guest.vtd.read64(0x80), 600 * 16 % 0x1000);
}

#[test]
fn an_unknown_type_stops_the_queue_and_clearing_the_error_resumes_it() {
    let mut guest = Guest::translating();
    guest.vtd.write64(0x40, 0xfee0_0000);
    guest.vtd.write32(0x3c, 0x30);
    guest.vtd.write32(0x38, 0);
    guest.submit(&[CONTEXT_GLOBAL, [0xf, 0], [1 << 5 | 9 << 32 | 5, STATUS]]);
    assert_eq!(guest.vtd.read32(FSTS), QUEUE_ERROR);
    assert_eq!(guest.vtd.read64(0x80), 16, "the head stays on the bad one");
    assert_eq!(guest.router.sent().len(), 1);
    assert_eq!(guest.load(STATUS), 0);
    // As qi_check_fault does: the slot is overwritten, then the error cleared.
    guest.store(RING + 16, IOTLB_GLOBAL[0]);
    guest.vtd.write32(FSTS, QUEUE_ERROR);
    assert_eq!(guest.load(STATUS), 9);
    assert_eq!(guest.vtd.read32(FSTS), 0);
}

#[test]
fn malformed_descriptors_stop_the_queue() {
    let bad = [
        [1 << 9 | 5, STATUS],
        [2, 0],
        [1, 0],
        [1 << 4 | 1, 1],
        [1 << 63 | 2 | 1 << 4, 0],
        [3, 0],
        pages(0, 19),
        pages(1 << 7, 0),
        [1 << 5 | 5, STATUS | 2],
        [5, 0],
    ];
    for descriptor in bad {
        let mut guest = Guest::translating();
        guest.submit(&[descriptor]);
        assert_eq!(guest.vtd.read32(FSTS), QUEUE_ERROR, "{descriptor:x?}");
    }
}

#[test]
fn a_tail_beyond_the_ring_is_an_error_and_no_loop() {
    let guest = Guest::translating();
    guest.vtd.write64(0x88, 0x2000);
    assert_eq!(guest.vtd.read32(FSTS), QUEUE_ERROR);
}

#[test]
fn a_ring_outside_ram_is_an_error() {
    let guest = Guest::new();
    guest.vtd.write64(0x90, !0xfff);
    guest.vtd.write32(GCMD, QIE);
    guest.vtd.write32(0x88, 16);
    assert_eq!(guest.vtd.read32(FSTS), QUEUE_ERROR);
}

#[test]
fn wide_descriptors_are_an_error() {
    let guest = Guest::new();
    guest.vtd.write64(0x90, RING | 1 << 11);
    guest.vtd.write32(GCMD, QIE);
    guest.vtd.write32(0x88, 32);
    assert_eq!(guest.vtd.read32(FSTS), QUEUE_ERROR);
}

#[test]
fn a_status_outside_ram_is_an_error() {
    let mut guest = Guest::translating();
    guest.submit(&[[1 << 5 | 5, 0xfed9_0000]]);
    assert_eq!(guest.vtd.read32(FSTS), QUEUE_ERROR);
    assert_eq!(guest.vtd.read32(GSTS), TE | SRTP | QIE);
}

#[test]
fn a_wait_stores_interrupts_or_both() {
    let mut guest = Guest::translating();
    guest.vtd.write64(0xa8, 0xfee0_2000);
    guest.vtd.write32(0xa4, 0x55);
    guest.vtd.write32(0xa0, 0);
    guest.submit(&[[3 << 32 | 1 << 5 | 1 << 4 | 5, STATUS]]);
    assert_eq!(guest.load(STATUS), 3);
    assert_eq!(guest.vtd.read32(0x9c), 1);
    assert_eq!(guest.router.sent().len(), 1);
    guest.submit(&[[1 << 4 | 5, 0]]);
    assert_eq!(guest.router.sent().len(), 1, "the first is not serviced yet");
    guest.vtd.write32(0x9c, 1);
    guest.submit(&[[1 << 4 | 5, 0], [1 << 6 | 5, 0]]);
    assert_eq!(guest.router.sent().len(), 2);
    assert_eq!(guest.vtd.read32(FSTS), 0, "a mere fence is fine");
}

#[test]
fn adjacent_invalidations_before_one_wait_are_one_sync() {
    let mut guest = Guest::translating();
    for page in 0..4 {
        guest.set_page(
            0x10_0000 + page * 0x1000,
            (0x20_0000 + page * 0x1000) | READ | WRITE,
        );
    }
    guest.domain.take_calls();
    let each: Vec<_> = (0..4).map(|page| pages(0x10_0000 + page * 0x1000, 0)).collect();
    guest.invalidate(&each);
    assert_eq!(guest.domain.take_calls(), [DmaCall::Map(0x10_0000, 0x4000)]);
}

/// Notes the status word at each call.
struct Watcher {
    memory: Arc<GuestMemoryMmap>,
    seen: Mutex<Vec<u32>>,
}

impl Watcher {
    fn look(&self) {
        let status = self.memory.read_obj(GuestAddress(STATUS)).expect("RAM");
        self.seen.lock().expect("one thread").push(status);
    }
}

impl Domain for Watcher {
    fn map(&self, _: Iova, _: HostAddress, _: u64, _: Access) -> Result<(), DomainError> {
        self.look();
        Ok(())
    }

    fn unmap(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        Ok(())
    }

    fn unmap_all(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        self.look();
        Ok(())
    }
}

#[test]
fn the_host_is_done_before_the_status_is_written() {
    let mut guest = Guest::new();
    let watcher = Arc::new(Watcher {
        memory: guest.memory.clone(),
        seen: Mutex::default(),
    });
    let devices = vec![(guest.requester.clone(), watcher.clone() as Arc<dyn Domain>)];
    guest.vtd = Vtd::new(CONFIG, guest.memory.clone(), guest.router.clone(), devices);
    guest.vtd.map(&slot(0, RAM, HOST, MemoryKind::Ram)).expect("RAM");
    guest.start();
    for value in [0x20_0000 | READ, 0, 0x30_0000 | READ] {
        guest.set_page(0x1000, value);
        guest.invalidate_pages(0x1000, 0);
    }
    assert_eq!(*watcher.seen.lock().expect("one thread"), [0, 1, 2]);
}

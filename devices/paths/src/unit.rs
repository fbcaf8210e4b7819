//! The virtual IOMMU, from the write of its queue's tail to the status word of the wait behind it.

use std::sync::Arc;

use strait_devices::address_space::{MapListener, Mapping};
use strait_devices::dma::{Domain, Requester};
use strait_devices::iommu::vtd::{AddressWidth, Vtd, VtdConfig};
use strait_devices::region::MemoryKind;
use strait_devices::{Device, GuestAddress};
use vm_memory::{Bytes, GuestMemoryMmap};

use super::host::{Host, RAM};

const PAGE: u64 = 4096;
const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const RING: u64 = 0x3000;
const STATUS: u64 = 0x4000;
/// Four levels of tables, one page each.
const TABLES: u64 = 0x10_0000;
const LEAVES: u64 = TABLES + 3 * PAGE;
const BUFFER: u64 = 0x200_0000;
const READ_WRITE: u64 = 3;
/// Pages that are invalidated one by one with one write of the tail.
const BATCH: u64 = 32;

/// A guest that drives one device behind the unit.
struct Guest {
    vtd: Arc<Vtd>,
    memory: Arc<GuestMemoryMmap>,
    tail: u64,
}

/// An invalidation of 2^`mask` pages that are mapped and did not change: the unit walks the tables over them and finds
/// its book right.
pub(crate) fn walk(mask: u64) -> Box<dyn FnMut()> {
    let mut guest = Guest::new();
    guest.set_pages(1 << mask, READ_WRITE);
    guest.invalidate(mask);
    Box::new(move || guest.invalidate(mask))
}

/// 2^`mask` pages are mapped and unmapped, an invalidation and a wait each.
pub(crate) fn map_and_unmap(mask: u64) -> Box<dyn FnMut()> {
    let mut guest = Guest::new();
    Box::new(move || {
        for rights in [READ_WRITE, 0] {
            guest.set_pages(1 << mask, rights);
            guest.invalidate(mask);
        }
    })
}

/// Many pages are mapped, and unmapped, with one write of the tail for all.
pub(crate) fn batch() -> Box<dyn FnMut()> {
    let mut guest = Guest::new();
    Box::new(move || {
        for rights in [READ_WRITE, 0] {
            for page in 0..BATCH {
                // With a gap between each two, so that none is a part of another's mapping.
                guest.store(LEAVES + page * 16, (BUFFER + page * PAGE) | rights);
                guest.queue([5 << 16 | 3 << 4 | 2, page * 2 * PAGE]);
            }
            guest.finish();
        }
    })
}

impl Guest {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("64 MiB");
        let memory = Arc::new(memory);
        let config = VtdConfig {
            width: AddressWidth::Bits48,
            caching_mode: true,
            interrupt_remapping: true,
            extended_interrupts: true,
            snoop_control: false,
        };
        let requester = Requester {
            bus: Arc::default(),
            devfn: 0,
        };
        requester.bus.set(1);
        let devices = vec![(requester, Arc::new(Host) as Arc<dyn Domain>)];
        let vtd = Vtd::new(config, memory.clone(), Arc::new(Host), devices);
        let ram = Mapping {
            at: GuestAddress(0),
            kind: MemoryKind::Ram,
            backing: Arc::new(Host),
            name: "ram".into(),
        };
        vtd.map(&ram).expect("RAM");
        let guest = Self { vtd, memory, tail: 0 };
        guest.start();
        guest
    }

    /// Root and context entries of 01:00.0, tables down to the leaves, queue and translation on.
    fn start(&self) {
        self.store(ROOT + 16, CONTEXTS | 1);
        self.store(CONTEXTS, TABLES | 1);
        self.store(CONTEXTS + 8, 5 << 8 | 2);
        for level in 0..3 {
            self.store(TABLES + level * PAGE, (TABLES + (level + 1) * PAGE) | READ_WRITE);
        }
        self.write(0x90, &RING.to_le_bytes());
        self.write(0x20, &ROOT.to_le_bytes());
        self.write(0x18, &(1u32 << 26 | 1 << 30).to_le_bytes());
        self.write(0x18, &(1u32 << 26 | 1 << 31).to_le_bytes());
    }

    fn set_pages(&self, count: u64, rights: u64) {
        for page in 0..count {
            self.store(LEAVES + page * 8, (BUFFER + page * PAGE) | rights);
        }
    }

    fn invalidate(&mut self, mask: u64) {
        self.queue([5 << 16 | 3 << 4 | 2, mask]);
        self.finish();
    }

    /// A wait, then the tail for all that was queued.
    fn finish(&mut self) {
        self.queue([7 << 32 | 1 << 5 | 5, STATUS]);
        self.store(STATUS, 0);
        self.write(0x88, &self.tail.to_le_bytes());
        let status: u64 = self.memory.read_obj(GuestAddress(STATUS)).expect("RAM");
        assert_eq!(status, 7, "the wait completed");
    }

    fn queue(&mut self, descriptor: [u64; 2]) {
        self.store(RING + self.tail, descriptor[0]);
        self.store(RING + self.tail + 8, descriptor[1]);
        self.tail = (self.tail + 16) % PAGE;
    }

    fn store(&self, at: u64, value: u64) {
        self.memory.write_obj(value, GuestAddress(at)).expect("RAM");
    }

    fn write(&self, at: u64, data: &[u8]) {
        let _none = self.vtd.write(at, data);
    }
}

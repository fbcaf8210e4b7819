//! A guest with one unit, one passed device at 01:00.0, and 64 MiB of RAM.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::address_space::{MapListener, Mapping};
use crate::dma::{BusMaster, Domain, Requester};
use crate::iommu::vtd::{AddressWidth, Vtd, VtdConfig};
use crate::irq::{MsiMessage, MsiRoute};
use crate::region::{HostAddress, MemoryKind};
use crate::testing::{FakeBacking, FakeDmaMapping, FakeDomain, FakeRouter, Registers};

pub(super) const RAM: u64 = 64 << 20;
/// Where the process that runs the guest has the RAM.
pub(super) const HOST: u64 = 0x7f00_0000_0000;
pub(super) const DEVICE: u16 = 0x0100;
pub(super) const DOMAIN: u16 = 5;

const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
pub(super) const RING: u64 = 0x3000;
pub(super) const STATUS: u64 = 0x4000;
pub(super) const IRT: u64 = 0x5000;
/// The top of the device's own tables; more follow as they are needed.
pub(super) const TABLE: u64 = 0x10_0000;

pub(super) const READ: u64 = 1;
pub(super) const WRITE: u64 = 2;
pub(super) const LARGE: u64 = 1 << 7;

pub(super) const GCMD: u64 = 0x18;
pub(super) const GSTS: u64 = 0x1c;
pub(super) const FSTS: u64 = 0x34;
pub(super) const QIE: u32 = 1 << 26;
pub(super) const SRTP: u32 = 1 << 30;
pub(super) const TE: u32 = 1 << 31;
pub(super) const SIRTP: u32 = 1 << 24;
pub(super) const IRE: u32 = 1 << 25;

pub(super) struct Guest {
    pub(super) vtd: Arc<Vtd>,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) router: Arc<FakeRouter>,
    pub(super) domain: Arc<FakeDomain>,
    pub(super) requester: Requester,
    pub(super) gate: Arc<dyn BusMaster>,
    levels: u8,
    next_table: u64,
    tail: u64,
    waits: u32,
}

pub(super) const CONFIG: VtdConfig = VtdConfig {
    width: AddressWidth::Bits48,
    caching_mode: true,
    interrupt_remapping: true,
    extended_interrupts: true,
    snoop_control: false,
};

impl Guest {
    pub(super) fn new() -> Self {
        Self::with(CONFIG, 4)
    }

    pub(super) fn with(config: VtdConfig, levels: u8) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("64 MiB");
        let (memory, router, domain) = (Arc::new(memory), FakeRouter::new(), FakeDomain::new());
        let requester = Requester {
            bus: Arc::default(),
            devfn: 0,
        };
        requester.bus.set((DEVICE >> 8) as u8);
        let devices = vec![(requester.clone(), domain.clone() as Arc<dyn Domain>)];
        let vtd = Vtd::new(config, memory.clone(), router.clone(), devices);
        vtd.map(&slot(0, RAM, HOST, MemoryKind::Ram)).expect("RAM");
        Self {
            gate: vtd.bus_master(0),
            vtd,
            memory,
            router,
            domain,
            requester,
            levels,
            next_table: TABLE + 0x1000,
            tail: 0,
            waits: 0,
        }
    }

    /// Function 0 of another bus; `id` is what its requests carry.
    pub(super) fn requester_of(id: u64) -> Requester {
        let requester = Requester {
            bus: Arc::default(),
            devfn: 0,
        };
        requester.bus.set((id >> 8) as u8);
        requester
    }

    /// A guest that translates, with an empty table for its device.
    pub(super) fn translating() -> Self {
        let mut guest = Self::new();
        guest.start();
        guest
    }

    pub(super) fn start(&mut self) {
        self.set_context(TABLE | 1, u64::from(self.levels - 2) | u64::from(DOMAIN) << 8);
        self.store(ROOT + 16, CONTEXTS | 1);
        self.start_queue();
        self.vtd.write64(0x20, ROOT);
        self.vtd.write32(GCMD, QIE | SRTP);
        self.vtd.write32(GCMD, QIE | TE);
    }

    pub(super) fn start_queue(&mut self) {
        self.vtd.write64(0x90, RING);
        self.vtd.write64(0x88, 0);
        self.vtd.write32(GCMD, QIE);
    }

    pub(super) fn set_context(&self, low: u64, high: u64) {
        self.store(CONTEXTS, low);
        self.store(CONTEXTS + 8, high);
    }

    pub(super) fn store(&self, at: u64, value: u64) {
        self.memory.write_obj(value, GuestAddress(at)).expect("RAM");
    }

    pub(super) fn load(&self, at: u64) -> u64 {
        self.memory.read_obj(GuestAddress(at)).expect("RAM")
    }

    /// The address of the entry for `iova` at `level`, with the tables above it made.
    pub(super) fn entry(&mut self, iova: u64, level: u8) -> u64 {
        let mut table = TABLE;
        for above in (level..self.levels).rev() {
            let entry = table + (iova >> (12 + 9 * u32::from(above)) & 0x1ff) * 8;
            if self.load(entry) & 3 == 0 || self.load(entry) & LARGE != 0 {
                self.store(entry, self.next_table | READ | WRITE);
                for at in 0..512 {
                    self.store(self.next_table + at * 8, 0);
                }
                self.next_table += 0x1000;
            }
            table = self.load(entry) & !0xfff;
        }
        table + (iova >> (12 + 9 * (u32::from(level) - 1)) & 0x1ff) * 8
    }

    /// Writes a page of 4 KiB into the table, and tells nobody.
    pub(super) fn set_page(&mut self, iova: u64, value: u64) {
        let entry = self.entry(iova, 1);
        self.store(entry, value);
    }

    pub(super) fn submit(&mut self, descriptors: &[[u64; 2]]) {
        let tail = self.write_ring(descriptors);
        self.vtd.write32(0x88, tail as u32);
    }

    /// Puts descriptors into the ring; tells where its tail is to be.
    pub(super) fn write_ring(&mut self, descriptors: &[[u64; 2]]) -> u64 {
        for [low, high] in descriptors {
            self.store(RING + self.tail, *low);
            self.store(RING + self.tail + 8, *high);
            self.tail = (self.tail + 16) % 0x1000;
        }
        self.tail
    }

    /// Submits with a wait behind, and checks that it completes.
    pub(super) fn invalidate(&mut self, descriptors: &[[u64; 2]]) {
        self.waits += 1;
        let wait = [u64::from(self.waits) << 32 | 1 << 5 | 5, STATUS];
        let all: Vec<_> = descriptors.iter().copied().chain([wait]).collect();
        self.submit(&all);
        assert_eq!(self.load(STATUS) as u32, self.waits, "the wait completed");
    }

    /// Page-selective, 2^mask pages.
    pub(super) fn invalidate_pages(&mut self, iova: u64, mask: u64) {
        self.invalidate(&[pages(iova, mask)]);
    }

    pub(super) fn mappings(&self) -> Vec<(u64, u64, u64)> {
        let triple = |m: FakeDmaMapping| (m.iova.0, m.host.0 - HOST, m.len_bytes);
        self.domain.mappings().into_iter().map(triple).collect()
    }
}

pub(super) fn pages(iova: u64, mask: u64) -> [u64; 2] {
    [u64::from(DOMAIN) << 16 | 3 << 4 | 2, iova | mask]
}

pub(super) const CONTEXT_GLOBAL: [u64; 2] = [1 << 4 | 1, 0];
pub(super) const IOTLB_GLOBAL: [u64; 2] = [1 << 4 | 2, 0];

pub(super) fn slot(at: u64, len_bytes: u64, host: u64, kind: MemoryKind) -> Mapping {
    let host = HostAddress(host);
    Mapping {
        at: GuestAddress(at),
        kind,
        backing: Arc::new(FakeBacking { host, len_bytes }),
        name: "slot".into(),
    }
}

/// Sets a route and brings it into effect. That it leads nowhere is no error.
pub(super) fn set(route: &dyn MsiRoute, message: Option<MsiMessage>) {
    route.set(message);
    route.commit().expect("a fake route takes every message");
}

//! A machine of 16 pages of RAM, a unit, and one or two passed devices, small enough to be built for every
//! input.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use vm_memory::GuestAddress;

use super::input::Input;
use super::meter::{BYTES, Meter, Metered};
use crate::address_space::{MapListener, Mapping};
use crate::dma::{Access, BusMaster, Domain, DomainError, Iova, Requester};
use crate::iommu::vtd::{AddressWidth, TableMemory, Vtd, VtdConfig};
use crate::region::{HostAddress, MemoryKind};
use crate::testing::{FakeBacking, FakeRouter, Registers, finish, lock};

pub(super) const PAGE: u64 = 0x1000;
/// RAM that tables, rings and status words can be in.
pub(super) const RAM: u64 = 16 * PAGE;
/// Where the status of a wait goes.
pub(super) const STATUS: u64 = 0x800;
/// What it is then; no table entry that is present, should a table be there too.
const DONE: u64 = 0x5a58;
pub(super) const ROOT: u64 = PAGE;
pub(super) const CONTEXTS: u64 = 2 * PAGE;
pub(super) const RING: u64 = 3 * PAGE;
pub(super) const IRT: u64 = 4 * PAGE;
/// The first of the pages for second-stage tables.
pub(super) const TABLE: u64 = 5 * PAGE;

/// Memory of the guest: the RAM above, some in which a 2 MiB and a 1 GiB page fit, and a BAR.
pub(super) const SLOTS: [Slot; 4] = [
    Slot::new(0, RAM, 0x7f00_0000_0000, MemoryKind::Ram),
    Slot::new(0x20_0000, 0x40_0000, 0x7f10_0000_0000, MemoryKind::Ram),
    Slot::new(0x4000_0000, 0x4000_0000, 0x7f20_0000_0000, MemoryKind::Ram),
    BAR,
];
pub(super) const BAR: Slot = Slot::new(0xfd00_0000, 4 * PAGE, 0x7e00_0000_0000, MemoryKind::Device);
/// Addresses of interrupts, which no DMA reaches.
pub(super) const WINDOW: (u64, u64) = (0xfee0_0000, 0xfef0_0000);

pub(super) const GCMD: u64 = 0x18;
pub(super) const GSTS: u64 = 0x1c;
pub(super) const RTADDR: u64 = 0x20;
pub(super) const FSTS: u64 = 0x34;
pub(super) const IQT: u64 = 0x88;
pub(super) const IQA: u64 = 0x90;
pub(super) const QIE: u32 = 1 << 26;
pub(super) const SRTP: u32 = 1 << 30;
pub(super) const TE: u32 = 1 << 31;

pub(super) const CONTEXT_GLOBAL: [u64; 2] = [1 << 4 | 1, 0];
pub(super) const IOTLB_GLOBAL: [u64; 2] = [1 << 4 | 2, 0];

/// A part of the guest's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) host: u64,
    pub(super) kind: MemoryKind,
}

impl Slot {
    const fn new(at: u64, len: u64, host: u64, kind: MemoryKind) -> Self {
        Self { at, len, host, kind }
    }

    fn mapping(self) -> Mapping {
        let (host, len_bytes) = (HostAddress(self.host), self.len);
        Mapping {
            at: GuestAddress(self.at),
            kind: self.kind,
            backing: Arc::new(FakeBacking { host, len_bytes }),
            name: "slot".into(),
        }
    }
}

/// RAM that another CPU may write between two loads of the unit.
pub(super) struct Ram {
    words: Box<[AtomicU64]>,
    has_edits: AtomicBool,
    /// Loads to wait for, where, and what.
    edits: Mutex<VecDeque<(u64, u64, u64)>>,
}

impl Ram {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            words: (0..RAM / 8).map(|_| AtomicU64::new(0)).collect(),
            has_edits: AtomicBool::new(false),
            edits: Mutex::default(),
        })
    }

    fn word(&self, at: u64) -> Option<&AtomicU64> {
        let index = usize::try_from(at / 8).ok()?;
        self.words.get(index).filter(|_| at.is_multiple_of(8))
    }

    /// Without being noticed.
    pub(super) fn peek(&self, at: u64) -> Option<u64> {
        self.word(at).map(|word| word.load(Relaxed))
    }

    pub(super) fn poke(&self, at: u64, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Relaxed);
        }
    }

    /// Writes `value` once the unit has done `after` loads more than for the edit before.
    pub(super) fn poke_later(&self, after: u64, at: u64, value: u64) {
        lock(&self.edits).push_back((after, at, value));
        self.has_edits.store(true, Relaxed);
    }

    pub(super) fn stop_edits(&self) {
        lock(&self.edits).clear();
        self.has_edits.store(false, Relaxed);
    }

    /// The unit loads something.
    fn edit(&self) {
        let mut edits = lock(&self.edits);
        while let Some((wait, at, value)) = edits.front_mut() {
            if let Some(left) = wait.checked_sub(1) {
                *wait = left;
                return;
            }
            self.poke(*at, *value);
            edits.pop_front();
        }
        self.has_edits.store(false, Relaxed);
    }
}

impl TableMemory for Ram {
    fn load(&self, at: GuestAddress) -> Option<u64> {
        if self.has_edits.load(Relaxed) {
            self.edit();
        }
        self.peek(at.0)
    }

    fn store(&self, at: GuestAddress, value: u32) -> bool {
        let (word, shift) = (at.0 & !7, at.0 % 8 * 8);
        let Some(before) = self.peek(word).filter(|_| at.0.is_multiple_of(4)) else {
            return false;
        };
        self.poke(word, before & !(0xffff_ffff << shift) | u64::from(value) << shift);
        true
    }
}

/// Contiguous on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) iova: u64,
    pub(super) len: u64,
    pub(super) host: u64,
    pub(super) access: Access,
}

/// Ascending pieces with those made one that go on where the last one ends.
pub(super) fn joined(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match all.last_mut() {
            Some(last)
                if last.iova + last.len == piece.iova
                    && last.host + last.len == piece.host
                    && last.access == piece.access =>
            {
                last.len += piece.len;
            }
            _ => all.push(piece),
        }
    }
    all
}

/// A domain with the rules of a type1v2 container, which panics where one is broken.
pub(super) struct StrictDomain {
    limit: u64,
    refuses: AtomicBool,
    meter: Meter,
    mappings: Mutex<BTreeMap<u64, Piece>>,
}

impl StrictDomain {
    pub(super) fn set_refuses(&self, refuses: bool) {
        self.refuses.store(refuses, Relaxed);
    }

    pub(super) fn pieces(&self) -> Vec<Piece> {
        joined(lock(&self.mappings).values().copied())
    }

    fn check(&self, piece: Piece) {
        let Piece { iova, len, host, .. } = piece;
        let is_whole = len != 0 && [iova, len, host].iter().all(|value| value.is_multiple_of(PAGE));
        assert!(is_whole && len <= BYTES, "{piece:x?}");
        assert!(iova + len <= self.limit, "beyond the width: {piece:x?}");
        assert!(
            iova >= WINDOW.1 || iova + len <= WINDOW.0,
            "the interrupt window: {piece:x?}"
        );
        let is_inside = |slot: &Slot| slot.host <= host && host + len <= slot.host + slot.len;
        assert!(
            SLOTS.iter().any(is_inside),
            "outside the guest's memory: {piece:x?}"
        );
    }
}

impl Domain for StrictDomain {
    fn map(&self, iova: Iova, host: HostAddress, len_bytes: u64, access: Access) -> Result<(), DomainError> {
        let piece = Piece {
            iova: iova.0,
            len: len_bytes,
            host: host.0,
            access,
        };
        self.check(piece);
        let mut mappings = lock(&self.mappings);
        let before = mappings.range(..iova.0 + len_bytes).next_back();
        assert!(
            before.is_none_or(|(start, other)| start + other.len <= iova.0),
            "{piece:x?} over {before:x?}"
        );
        self.meter.note(len_bytes);
        if self.refuses.load(Relaxed) {
            return Err("refused".into());
        }
        mappings.insert(iova.0, piece);
        Ok(())
    }

    fn unmap(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        self.unmap_all(iova, len_bytes)
    }

    fn unmap_all(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        let (start, end) = (iova.0, iova.0 + len_bytes);
        let mut mappings = lock(&self.mappings);
        let crosses = |at: u64, other: &Piece| other.iova < at && at < other.iova + other.len;
        let touched: Vec<_> = mappings
            .range(..end)
            .rev()
            .take_while(|(_, other)| start < other.iova + other.len)
            .map(|(at, other)| (*at, *other))
            .collect();
        self.meter.note(touched.iter().map(|(_, other)| other.len).sum());
        for (at, other) in touched {
            assert!(
                !crosses(start, &other) && !crosses(end, &other),
                "{other:x?} is cut"
            );
            mappings.remove(&at);
        }
        Ok(())
    }
}

/// The machine.
pub(super) struct Machine {
    pub(super) config: VtdConfig,
    pub(super) ram: Arc<Ram>,
    pub(super) vtd: Metered,
    pub(super) router: Arc<FakeRouter>,
    pub(super) domains: Vec<Arc<StrictDomain>>,
    pub(super) requesters: Vec<Requester>,
    gates: Vec<Arc<dyn BusMaster>>,
    has_bar: bool,
}

impl Machine {
    /// After power-on, with what the first byte says of width, snooping and the number of devices.
    pub(super) fn new(input: &mut Input<'_>) -> Self {
        let choice = input.u8();
        let bit = |index: u8| choice >> index & 1 != 0;
        let config = VtdConfig {
            width: if bit(0) {
                AddressWidth::Bits39
            } else {
                AddressWidth::Bits48
            },
            caching_mode: true,
            interrupt_remapping: true,
            extended_interrupts: !bit(1),
            snoop_control: bit(2),
        };
        let (ram, router) = (Ram::new(), FakeRouter::new());
        let meter = Meter::new(router.clone());
        let count = if bit(3) { 2 } else { 1 };
        let domains: Vec<_> = (0..count)
            .map(|_| {
                Arc::new(StrictDomain {
                    limit: 1 << config.width.bits(),
                    refuses: AtomicBool::new(false),
                    meter: meter.clone(),
                    mappings: Mutex::default(),
                })
            })
            .collect();
        let requesters: Vec<_> = (0..count).map(requester).collect();
        let devices = requesters.iter().zip(&domains);
        let devices =
            devices.map(|(requester, domain)| (requester.clone(), domain.clone() as Arc<dyn Domain>));
        let vtd = Vtd::new(config, ram.clone(), router.clone(), devices.collect());
        for slot in SLOTS {
            vtd.map(&slot.mapping()).expect("the unit refuses no memory");
        }
        Self {
            gates: (0..count.into()).map(|index| vtd.bus_master(index)).collect(),
            config,
            ram,
            vtd: Metered::new(vtd, meter),
            router,
            domains,
            requesters,
            has_bar: true,
        }
    }

    pub(super) fn has_bar(&self) -> bool {
        self.has_bar
    }

    pub(super) fn set_bar(&mut self, present: bool) {
        match (self.has_bar, present) {
            (false, true) => self.vtd.map(&BAR.mapping()).expect("the unit refuses no memory"),
            (true, false) => self.vtd.unmap(&BAR.mapping()),
            _ => {}
        }
        self.has_bar = present;
    }

    pub(super) fn set_bus_master(&self, index: usize, on: bool) {
        self.vtd.set_bus_master(&*self.gates[index], on);
    }

    /// The bridge above a device takes another number.
    pub(super) fn renumber(&self, index: usize, bus: u8) {
        self.requesters[index].bus.set(bus);
        finish(self.vtd.renumbered());
    }

    /// GCMD with `bits` besides what lasts.
    pub(super) fn command(&self, bits: u32) {
        self.vtd.write32(GCMD, self.lasting() | bits);
    }

    /// The bits of GSTS that are switches; others would repeat a command.
    pub(super) fn lasting(&self) -> u32 {
        self.vtd.read32(GSTS) & (TE | QIE | 1 << 25 | 1 << 23)
    }

    /// Switches the queue off and on with an empty ring, whatever was done to it.
    pub(super) fn restart_queue(&self) {
        self.vtd.write32(GCMD, self.lasting() & !QIE);
        self.vtd.write32(FSTS, 0x11);
        self.vtd.write64(IQA, RING);
        self.vtd.write64(IQT, 0);
        self.command(QIE);
        assert_eq!((self.vtd.read64(0x80), self.vtd.read32(FSTS) & 0x10), (0, 0));
    }

    /// Puts `descriptors` and a wait into the ring, and checks that the wait completes.
    pub(super) fn invalidate(&self, descriptors: &[[u64; 2]]) {
        self.restart_queue();
        self.ram.poke(STATUS, 0);
        let wait = [DONE << 32 | 1 << 5 | 5, STATUS];
        let count = self.fill_ring(descriptors.iter().copied().chain([wait]));
        self.vtd.write64(IQT, 16 * count);
        assert_eq!(self.ram.peek(STATUS), Some(DONE), "the wait completed");
    }

    /// Puts descriptors into the ring from its start, and tells how many.
    pub(super) fn fill_ring(&self, descriptors: impl Iterator<Item = [u64; 2]>) -> u64 {
        let mut count = 0;
        for (at, [low, high]) in (RING..).step_by(16).zip(descriptors) {
            self.ram.poke(at, low);
            self.ram.poke(at + 8, high);
            count += 1;
        }
        count
    }
}

fn requester(index: u8) -> Requester {
    let requester = Requester {
        bus: Arc::default(),
        devfn: index * 8,
    };
    requester.bus.set(1);
    requester
}

//! The unit as the machine has it: a register page, a listener of the memory map, and what stands before bus masters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use vm_memory::GuestAddress;

use super::capability::VtdConfig;
use super::dma::DeviceStats;
use super::memory::TableMemory;
use super::queue::InvalidationStats;
use super::turn::Turn;
use super::unit::Unit;
use crate::address_space::{MapError, MapListener, Mapping};
use crate::dma::{Access, BusMaster, Domain, Iova, Renumbered, Requester, RequesterId};
use crate::irq::MsiRouter;
use crate::region::{Device, Effect, Unfinished};

/// The unit. It hears of the memory map as a [`MapListener`].
pub struct Vtd {
    unit: Mutex<Unit>,
    /// Held by who waits for the unit.
    door: Mutex<()>,
    /// Callers who wait until all is followed that was noted so far. While there are any, nothing new is begun: a
    /// guest that always has more to do would keep them for ever, and what they hold.
    pub(super) waiting: AtomicUsize,
    /// Itself, for who goes on with its work.
    this: Weak<Self>,
}

/// Numbers for those who measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VtdStats {
    /// What the guest asked for.
    pub invalidations: InvalidationStats,
    /// What it cost, by device.
    pub devices: Vec<DeviceStats>,
    /// Interrupt routes that lead through the unit.
    pub routes: u64,
}

impl Vtd {
    /// Bytes of guest memory it takes.
    pub const LEN_BYTES: u64 = 0x1000;

    /// A unit after power-on. Each device has a domain of its own, in which nothing is mapped.
    pub fn new(
        config: VtdConfig,
        memory: Arc<dyn TableMemory>,
        router: Arc<dyn MsiRouter>,
        devices: Vec<(Requester, Arc<dyn Domain>)>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            unit: Mutex::new(Unit::new(config, memory, router, devices)),
            door: Mutex::default(),
            waiting: AtomicUsize::new(0),
            this: this.clone(),
        })
    }

    /// Takes in a device that comes while the guest runs, with a domain in which nothing is mapped, and tells its index.
    pub fn attach(&self, requester: Requester, domain: Arc<dyn Domain>) -> usize {
        let index = self.lock_after_others().dma.attach(requester, domain);
        self.in_turns(|unit, turn| unit.dma.sync(turn));
        index
    }

    /// Whether the guest's tables may ask for DMA that is coherent whatever the device says (ECAP.SC).
    pub fn snoops(&self) -> bool {
        self.lock().dma.snoops()
    }

    /// Where device `index` tells that it becomes bus master.
    pub fn bus_master(self: &Arc<Self>, index: usize) -> Arc<dyn BusMaster> {
        Arc::new(Gate {
            who: self.lock().dma.who(index),
            vtd: Arc::clone(self),
            index,
        })
    }

    /// Where a device's access would go now by the guest's tables, for who looks on: nothing is recorded. It holds
    /// for the rest of the 4 KiB page.
    pub fn look_up(&self, id: RequesterId, iova: Iova, access: Access) -> Option<GuestAddress> {
        self.lock().look_up(id, iova, access)
    }

    /// Where a request of an emulated device goes, `None` if it is blocked, which is recorded.
    #[cfg(any(test, feature = "testing"))]
    pub fn translate(&self, id: RequesterId, iova: Iova, access: Access) -> Option<GuestAddress> {
        self.lock().translate(id, iova, access)
    }

    /// Records faults for interrupts that arrived where no table entry leads anywhere.
    pub fn report_blocked(&self) {
        self.lock().report_blocked();
    }

    /// The state after power-on; the devices are reset before.
    pub fn reset(&self) {
        self.lock().reset();
        self.in_turns(Unit::follow);
    }

    /// What happened so far.
    pub fn stats(&self) -> VtdStats {
        let unit = self.lock();
        VtdStats {
            invalidations: unit.queue.stats(),
            devices: unit.dma.stats(),
            routes: unit.interrupts.live(),
        }
    }

    /// For callers that rely on what they asked for when they return: others get in between the turns.
    fn in_turns(&self, work: impl Fn(&mut Unit, &mut Turn) -> bool) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        while !work(&mut self.lock_after_others(), &mut Turn::new()) {}
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// A turn for the guest. The counter is read under the lock, which orders it with the waiting.
    fn turn(&self, unit: &mut Unit) -> bool {
        unit.go_on(self.waiting.load(Ordering::Relaxed) == 0)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Unit> {
        match self.unit.try_lock() {
            Ok(unit) => unit,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_after_others(),
        }
    }

    /// Behind who waits already: a mutex alone lets the one in who has just left, again and again.
    fn lock_after_others(&self) -> MutexGuard<'_, Unit> {
        let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effect(&self, is_done: bool) -> Effect {
        if is_done {
            return Effect::None;
        }
        let rest = self.this.upgrade();
        rest.map_or(Effect::None, |rest| Effect::More(Vec::new(), rest))
    }
}

impl Device for Vtd {
    fn name(&self) -> &str {
        "vt-d"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock().read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut unit = self.lock();
        unit.write(offset, data);
        let is_done = self.turn(&mut unit);
        drop(unit);
        self.effect(is_done)
    }
}

impl Unfinished for Vtd {
    fn go_on(&self) -> Effect {
        let is_done = self.turn(&mut self.lock_after_others());
        self.effect(is_done)
    }
}

impl Renumbered for Vtd {
    fn renumbered(&self) -> Effect {
        let mut unit = self.lock();
        unit.follow_requesters();
        let is_done = self.turn(&mut unit);
        drop(unit);
        self.effect(is_done)
    }
}

impl MapListener for Vtd {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        self.lock().dma.add_slot(mapping);
        self.in_turns(|unit, turn| unit.dma.sync(turn));
        Ok(())
    }

    fn unmap(&self, mapping: &Mapping) {
        self.lock().dma.remove_slot(mapping);
        self.in_turns(|unit, turn| unit.dma.sync(turn));
    }
}

/// Maps what a function may reach before its hardware may reach for it.
struct Gate {
    vtd: Arc<Vtd>,
    index: usize,
    /// The function itself: when it has left, its index may be another's.
    who: u64,
}

impl BusMaster for Gate {
    fn set_bus_master(&self, on: bool) -> bool {
        let mut unit = self.vtd.lock_after_others();
        if unit.dma.who(self.index) != self.who {
            return true;
        }
        unit.dma.set_bus_master(self.index, on);
        unit.dma.sync_device(self.index, &mut Turn::new())
    }

    fn leave(&self) {
        self.vtd.lock().dma.detach(self.index);
        self.vtd
            .in_turns(|unit, turn| unit.dma.sync_device(self.index, turn));
    }
}

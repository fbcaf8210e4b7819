//! An emulated Intel VT-d unit with caching mode and interrupt remapping, in legacy mode.
//!
//! [`Vtd`] is the register page. What a passed device may reach by DMA is shadowed from the guest's tables
//! into the device's [`Domain`] on the host, whenever the guest invalidates
//! (`invalidation`, `shadow`); what it may interrupt is translated into routes ([`RemappingRouter`]).
//!
//! One lock guards all of it. It may be taken while a function's or the address space's lock is held, and
//! the unit never calls back into either. The work is done on the thread of the vCPU that asks for it, a turn
//! at a time (`turn`, `work`): between two of them the lock is free and the vCPU can be stopped, and what it
//! leaves is done with the next write.
//!
//! Faults of a passed device's DMA are the host's to see, and are not recorded here: only those of emulated
//! devices and of interrupts are.

mod capability;
mod domains;
mod faults;
mod interrupt_remap;
mod invalidation;
mod latency;
mod memory;
mod register_file;
mod runs;
mod shadow;
mod spec;
mod translate;
mod turn;
mod unit;
mod work;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

pub use capability::{AddressWidth, VtdConfig};
pub use interrupt_remap::{RemappingRouter, Source};
pub use invalidation::InvalidationStats;
pub use latency::Latency;
pub use memory::TableMemory;
pub use shadow::ShadowStats;
use vm_memory::GuestAddress;

use self::domains::Endpoint;
use self::turn::Turn;
use self::unit::Unit;
use crate::address_space::{MapError, MapListener, Mapping};
use crate::dma::{Access, BusMaster, Domain, Iova, Renumbered, Requester, RequesterId};
use crate::irq::MsiRouter;
use crate::region::{Device, Effect, Unfinished};
pub use domains::Reach;

/// The unit. It hears of the memory map as a [`MapListener`].
pub struct Vtd {
    unit: Mutex<Unit>,
    /// Held by who waits for the unit.
    door: Mutex<()>,
    /// Callers who wait until all is followed that was noted so far. While there are any, nothing new is begun: a
    /// guest that always has more to do would keep them for ever, and what they hold.
    waiting: AtomicUsize,
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

/// Numbers of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStats {
    /// What its requests carry now.
    pub requester: RequesterId,
    /// What it reaches now.
    pub reach: Reach,
    /// What its domain on the host was asked for.
    pub shadow: ShadowStats,
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
        let endpoint = |(requester, domain)| Endpoint::new(requester, domain);
        let endpoints = devices.into_iter().map(endpoint).collect();
        Arc::new_cyclic(|this| Self {
            unit: Mutex::new(Unit::new(config, memory, router, endpoints)),
            door: Mutex::default(),
            waiting: AtomicUsize::new(0),
            this: this.clone(),
        })
    }

    /// Where device `index` tells that it becomes bus master.
    pub fn bus_master(self: &Arc<Self>, index: usize) -> Arc<dyn BusMaster> {
        Arc::new(Gate {
            vtd: Arc::clone(self),
            index,
        })
    }

    /// Where a request of an emulated device goes, `None` if it is blocked. It holds for the rest of the
    /// 4 KiB page.
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
            invalidations: unit.invalidations,
            devices: unit.endpoints.iter().map(Endpoint::stats).collect(),
            routes: unit.routes.live(),
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

    fn lock(&self) -> MutexGuard<'_, Unit> {
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
        self.lock().registers.read(offset, data);
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
        self.lock().add_slot(mapping);
        self.in_turns(Unit::sync_devices);
        Ok(())
    }

    fn unmap(&self, mapping: &Mapping) {
        self.lock().remove_slot(mapping);
        self.in_turns(Unit::sync_devices);
    }
}

/// Maps what a function may reach before its hardware may reach for it.
struct Gate {
    vtd: Arc<Vtd>,
    index: usize,
}

impl BusMaster for Gate {
    fn set_bus_master(&self, on: bool) -> bool {
        let mut unit = self.vtd.lock_after_others();
        unit.set_bus_master(self.index, on);
        unit.sync_device(self.index, &mut Turn::new())
    }

    fn leave(&self) {
        self.vtd.lock().detach(self.index);
        self.vtd.in_turns(|unit, turn| unit.sync_device(self.index, turn));
    }
}

#[cfg(test)]
mod tests;

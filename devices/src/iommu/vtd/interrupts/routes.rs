//! What was routed through the unit, and is translated again when entries change.

use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::remap::{RemapTable, Source, index};
use crate::Chain;
use crate::iommu::vtd::capability::VtdConfig;
use crate::iommu::vtd::faults::Fault;
use crate::iommu::vtd::memory::TableMemory;
use crate::iommu::vtd::request::EntryScope;
use crate::iommu::vtd::spec::registers::RemapTableAddress;
use crate::iommu::vtd::turn::Turn;
use crate::irq::ioapic::PINS;
use crate::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use crate::lock::lock;
use crate::warning::FirstOnly;

/// The guest's table, and the routes and pins that go through it.
pub(in crate::iommu::vtd) struct InterruptRemapper {
    /// Remapping is offered to the guest.
    is_offered: bool,
    table: RemapTable,
    /// Where messages go once remapped.
    router: Arc<dyn MsiRouter>,
    ways: Vec<Weak<Way>>,
    pins: [Option<Pin>; PINS as usize],
    /// Entries that were invalidated. The room is kept.
    scopes: Vec<EntryScope>,
    /// How far their retranslation came, through the pins and then the ways.
    next: Option<usize>,
    /// A route failed to follow, and that was said: the guest can repeat it.
    failed: FirstOnly,
}

#[derive(Clone)]
struct Pin {
    source: Source,
    message: MsiMessage,
    sent: Option<MsiMessage>,
}

/// Takes the fault of an interrupt that was blocked.
type Record<'a> = &'a mut dyn FnMut(Fault);

impl InterruptRemapper {
    /// After power-on: nothing is remapped.
    pub(in crate::iommu::vtd) fn new(
        config: &VtdConfig,
        memory: Arc<dyn TableMemory>,
        router: Arc<dyn MsiRouter>,
    ) -> Self {
        Self {
            is_offered: config.interrupt_remapping,
            table: RemapTable::new(config, memory),
            router,
            ways: Vec::new(),
            pins: Default::default(),
            scopes: Vec::new(),
            next: None,
            failed: FirstOnly::default(),
        }
    }

    /// As after power-on, once the ways that are left follow. No pin sends anything: the machine's router outlives a
    /// reset, and would keep what the last boot set.
    pub(in crate::iommu::vtd) fn reset(&mut self) {
        self.table.reset();
        self.pins = Default::default();
        (0..PINS).for_each(|pin| self.router.set_pin(pin, None));
        self.commit_all(&[]);
        self.begin(&[EntryScope::All]);
    }

    /// Latches the guest's table, for SIRTP.
    pub(in crate::iommu::vtd) fn latch_table(&mut self, address: RemapTableAddress) {
        if self.is_offered {
            self.table.latch(address);
        }
    }

    /// IRE and CFI. Nothing is remapped before a table is latched.
    pub(in crate::iommu::vtd) fn switch(&mut self, on: bool, passes_compatibility: bool) {
        if self.is_offered {
            if !on || self.table.is_latched() {
                self.table.is_on = on;
            }
            self.table.passes_compatibility = passes_compatibility;
        }
    }

    /// Whether a table is latched, for IRTPS.
    pub(in crate::iommu::vtd) fn is_latched(&self) -> bool {
        self.table.is_latched()
    }

    /// Whether interrupts are remapped, for IRES.
    pub(in crate::iommu::vtd) fn is_on(&self) -> bool {
        self.table.is_on
    }

    /// Whether messages in the old format pass, for CFIS.
    pub(in crate::iommu::vtd) fn passes_compatibility(&self) -> bool {
        self.table.passes_compatibility
    }

    /// How many routes are in use.
    pub(in crate::iommu::vtd) fn live(&self) -> u64 {
        self.ways.iter().filter(|way| way.strong_count() > 0).count() as u64
    }

    /// Routes that take memory.
    #[cfg(test)]
    pub(in crate::iommu::vtd) fn kept(&self) -> usize {
        self.ways.len()
    }

    /// Delivers one message, or tells the fault of a blocked one.
    pub(in crate::iommu::vtd) fn send(&self, source: &Source, message: MsiMessage) -> Result<(), Fault> {
        self.router.send(self.table.remap(source, message)?);
        Ok(())
    }

    /// Marks a pin of the I/O APIC with what it sends.
    pub(in crate::iommu::vtd) fn set_pin(
        &mut self,
        number: u8,
        source: &Source,
        message: Option<MsiMessage>,
    ) {
        let sent = message.and_then(|message| self.table.remap(source, message).ok());
        let Some(slot) = self.pins.get_mut(usize::from(number)) else {
            return;
        };
        let before = slot.as_ref().and_then(|pin| pin.sent);
        *slot = message.map(|message| Pin {
            source: source.clone(),
            message,
            sent,
        });
        if sent != before {
            self.router.set_pin(number, sent);
        }
    }

    /// Brings the pins into effect.
    pub(in crate::iommu::vtd) fn commit(&self) -> Result<(), RouteError> {
        self.router.commit()
    }

    /// A new way for `source`. Those that are gone are forgotten before the list grows: a guest makes and drops
    /// routes as often as it likes, and need not invalidate anything.
    pub(in crate::iommu::vtd) fn route(&mut self, source: &Source) -> Result<Arc<Way>, RouteError> {
        let way = Arc::new(Way {
            source: source.clone(),
            inner: self.router.route()?,
            state: Mutex::default(),
        });
        if self.ways.len() == self.ways.capacity() {
            self.forget_gone();
        }
        self.ways.push(Arc::downgrade(&way));
        Ok(way)
    }

    /// Marks a way with what its source sends, `None` while it is masked.
    pub(in crate::iommu::vtd) fn set(&self, way: &Way, message: Option<MsiMessage>, record: Record<'_>) {
        way.state().wanted = message;
        way.apply(&self.table, record);
    }

    /// What uses an entry that `scopes` name, or one that was named before, is to be translated again.
    pub(in crate::iommu::vtd) fn begin(&mut self, scopes: &[EntryScope]) {
        self.scopes.extend_from_slice(scopes);
        if !self.scopes.is_empty() {
            self.next = Some(0);
            self.forget_gone();
        }
    }

    /// Translates again what uses an entry that is named, as one change of the machine's routes. What comes
    /// out the same costs next to nothing. False when the turn is over before.
    pub(in crate::iommu::vtd) fn retranslate(&mut self, turn: &mut Turn, record: Record<'_>) -> bool {
        let Some(first) = self.next else {
            return true;
        };
        let scopes = mem::take(&mut self.scopes);
        let (mut at, end) = (first, self.pins.len() + self.ways.len());
        let mut changed = Vec::new();
        while at < end && !turn.is_over() {
            turn.pay_entries(scopes.len() as u64);
            changed.extend(self.retranslate_one(at, &scopes, turn, record));
            at += 1;
        }
        self.commit_all(&changed);
        self.scopes = scopes;
        let is_done = at == end;
        if is_done {
            self.scopes.clear();
        }
        self.next = (!is_done).then_some(at);
        is_done
    }

    /// Marks the pin or the way at `at`; the way, if it goes elsewhere now.
    fn retranslate_one(
        &mut self,
        at: usize,
        scopes: &[EntryScope],
        turn: &mut Turn,
        record: Record<'_>,
    ) -> Option<Arc<Way>> {
        let named = |message: MsiMessage| {
            let index = index(message).ok();
            scopes.iter().any(|scope| scope.names(index))
        };
        let pins = self.pins.len();
        if at < pins {
            let pin = self.pins[at].clone().filter(|pin| named(pin.message))?;
            turn.pay_route();
            self.set_pin(at as u8, &pin.source, Some(pin.message));
            return None;
        }
        let way = self.ways[at - pins].upgrade()?;
        let is_named = way.state().wanted.is_some_and(named);
        let is_new = is_named && way.apply(&self.table, record);
        is_new.then(|| {
            turn.pay_route();
            way
        })
    }

    /// Brings into effect what was marked: all of it with the first commit that there is.
    fn commit_all(&mut self, changed: &[Arc<Way>]) {
        let ways = changed.iter().map(|way| way.commit());
        let failures = [self.router.commit()].into_iter().chain(ways);
        for error in failures.filter_map(Result::err) {
            if self.failed.pass() {
                log::warn!(
                    "An interrupt does not follow its remapping entry: {}; further failures are not reported",
                    Chain(&*error)
                );
            }
        }
    }

    /// A retranslation begins again: the ways move.
    fn forget_gone(&mut self) {
        self.ways.retain(|way| way.strong_count() > 0);
        self.next = self.next.map(|_| 0);
    }

    /// Tells of each interrupt that fired on a way which leads nowhere. Such a way holds its event back, so this is
    /// when it is seen; several since the last time are one.
    pub(in crate::iommu::vtd) fn report_blocked(&self, record: Record<'_>) {
        for way in self.ways.iter().filter_map(Weak::upgrade) {
            way.report(record);
        }
    }
}

/// Both ends of a route. Locks: the unit, then the state.
pub(in crate::iommu::vtd) struct Way {
    source: Source,
    inner: Arc<dyn MsiRoute>,
    state: Mutex<WayState>,
}

#[derive(Default)]
struct WayState {
    /// What the function sends, `None` while it is masked.
    wanted: Option<MsiMessage>,
    /// What the route behind was last told.
    sent: Option<MsiMessage>,
    /// Why an unmasked route delivers nothing.
    blocked: Option<Fault>,
}

impl Way {
    /// The event of the route behind.
    pub(in crate::iommu::vtd) fn event(&self) -> BorrowedFd<'_> {
        self.inner.event()
    }

    /// Whether an event waits because the function masked the way. One that the table blocks does not count.
    pub(in crate::iommu::vtd) fn pending(&self) -> bool {
        self.is_masked() && self.inner.pending()
    }

    /// Drops the event that waits because the function masked the way.
    pub(in crate::iommu::vtd) fn discard(&self) -> bool {
        self.is_masked() && self.inner.discard()
    }

    /// A way whose message is refused leads nowhere, and the next translation tries again.
    pub(in crate::iommu::vtd) fn commit(&self) -> Result<(), RouteError> {
        self.inner.commit().inspect_err(|_| {
            // Locked to the end: a translation meanwhile comes before all of it, or behind.
            let mut state = self.state();
            state.sent = None;
            self.inner.set(None);
            let _still_refused = self.inner.commit();
        })
    }

    /// Marks the route behind with what comes out of the table now; nothing, and false, if it has that already.
    fn apply(&self, table: &RemapTable, record: Record<'_>) -> bool {
        // What fired while the way was blocked is lost, and shall not come late.
        self.report(record);
        let mut state = self.state();
        let outcome = state.wanted.map(|message| table.remap(&self.source, message));
        let (sent, blocked) = match outcome {
            None => (None, None),
            Some(Ok(message)) => (Some(message), None),
            Some(Err(fault)) => (None, Some(fault)),
        };
        state.blocked = blocked;
        let is_new = sent != state.sent;
        if is_new {
            self.inner.set(sent);
            state.sent = sent;
        }
        is_new
    }

    /// Hands over the fault and drops the interrupt, if one fired on a blocked way.
    fn report(&self, record: Record<'_>) {
        let blocked = self.state().blocked;
        if let Some(fault) = blocked
            && self.inner.discard()
        {
            record(fault);
        }
    }

    fn is_masked(&self) -> bool {
        self.state().wanted.is_none()
    }

    fn state(&self) -> MutexGuard<'_, WayState> {
        lock(&self.state)
    }
}

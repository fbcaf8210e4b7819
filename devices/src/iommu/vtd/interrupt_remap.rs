//! Interrupt remapping (§5.1): from the message a source sends to the one a CPU gets.
//!
//! [`RemappingRouter`] stands in front of another router. A route is translated when it is set and again
//! when the guest invalidates its table entry, so that the kernel delivers the interrupt without us.

use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vm_memory::GuestAddress;

use super::Vtd;
use super::faults::{Fault, Reason};
use super::spec::interrupt::{
    IRTE, IrteHigh, IrteLow, MessageAddress, MessageData, RequestAddress, RequestData, SOURCE_MASKS, WINDOW,
    validation,
};
use super::spec::tables::PAGE;
use super::turn::Turn;
use super::unit::Unit;
use crate::Chain;
use crate::dma::{Requester, RequesterId};
use crate::irq::ioapic::PINS;
use crate::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};

/// Who sends an interrupt.
#[derive(Clone, Debug)]
pub enum Source {
    /// The machine's own I/O APIC, which is trusted to be who it says.
    Ioapic(RequesterId),
    /// A function; its id is checked.
    Function(Requester),
}

impl Source {
    fn id(&self) -> RequesterId {
        match self {
            Source::Ioapic(id) => *id,
            Source::Function(requester) => requester.id(),
        }
    }
}

/// Whose entries an invalidation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryScope {
    All,
    Range { first: u32, last: u32 },
}

impl EntryScope {
    /// 2^`mask` entries, aligned.
    pub(crate) fn range(index: u16, mask: u8) -> Self {
        let len = 1u64 << mask.min(16);
        let first = u64::from(index) & !(len - 1);
        EntryScope::Range {
            first: first as u32,
            last: (first + len - 1) as u32,
        }
    }

    fn names(self, message: MsiMessage) -> bool {
        match (self, index(message)) {
            (EntryScope::All, _) => true,
            (EntryScope::Range { first, last }, Ok(index)) => (first..=last).contains(&index),
            (EntryScope::Range { .. }, Err(_)) => false,
        }
    }
}

/// What was routed through the unit and must be translated again when entries change.
#[derive(Default)]
pub(crate) struct Routes {
    ways: Vec<Weak<Way>>,
    pins: [Option<Pin>; PINS as usize],
    /// How far a retranslation came, through the pins and then the ways.
    next: Option<usize>,
    /// A route failed to follow, and that was said: the guest can repeat it.
    has_warned: bool,
}

#[derive(Clone)]
struct Pin {
    source: Source,
    message: MsiMessage,
    sent: Option<MsiMessage>,
}

impl Routes {
    /// Routes in use.
    pub(crate) fn live(&self) -> u64 {
        self.ways.iter().filter(|way| way.strong_count() > 0).count() as u64
    }

    /// Routes that take memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.ways.len()
    }

    /// One more. Those that are gone are forgotten before the list grows: a guest makes and drops routes as
    /// often as it likes, and need not invalidate anything.
    fn add(&mut self, way: &Arc<Way>) {
        if self.ways.len() == self.ways.capacity() {
            self.forget_gone();
        }
        self.ways.push(Arc::downgrade(way));
    }

    /// A retranslation begins again: the ways move.
    fn forget_gone(&mut self) {
        self.ways.retain(|way| way.strong_count() > 0);
        self.next = self.next.map(|_| 0);
    }
}

impl Unit {
    /// Everything is to be translated again.
    pub(crate) fn retranslate_all(&mut self) {
        self.pending.entries.push(EntryScope::All);
        self.begin_retranslation();
    }

    /// What uses a pending entry is to be translated again.
    pub(crate) fn begin_retranslation(&mut self) {
        if !self.pending.entries.is_empty() {
            self.routes.next = Some(0);
            self.routes.forget_gone();
        }
    }

    /// Translates again what uses an entry that is named, as one change of the machine's routes. What comes
    /// out the same costs next to nothing. False when the turn is over before.
    pub(crate) fn retranslate(&mut self, turn: &mut Turn) -> bool {
        let Some(first) = self.routes.next else {
            return true;
        };
        let mut scopes = mem::take(&mut self.pending.entries);
        let (mut at, end) = (first, self.routes.pins.len() + self.routes.ways.len());
        let mut changed = Vec::new();
        while at < end && !turn.is_over() {
            turn.pay_entries(scopes.len() as u64);
            changed.extend(self.retranslate_one(at, &scopes, turn));
            at += 1;
        }
        self.commit(&changed);
        let is_done = at == end;
        if is_done {
            scopes.clear();
        }
        self.routes.next = (!is_done).then_some(at);
        self.pending.entries = scopes;
        is_done
    }

    /// Marks the pin or the way at `at`; the way, if it goes elsewhere now.
    fn retranslate_one(&mut self, at: usize, scopes: &[EntryScope], turn: &mut Turn) -> Option<Arc<Way>> {
        let named = |message: MsiMessage| scopes.iter().any(|scope| scope.names(message));
        let pins = self.routes.pins.len();
        if at < pins {
            let pin = self.routes.pins[at].clone().filter(|pin| named(pin.message))?;
            turn.pay_route();
            self.set_pin(at as u8, &pin.source, Some(pin.message));
            return None;
        }
        let way = self.routes.ways[at - pins].upgrade()?;
        let is_new = way.state().wanted.is_some_and(named) && way.apply(self);
        is_new.then(|| {
            turn.pay_route();
            way
        })
    }

    /// Brings into effect what was marked: all of it with the first commit that there is.
    fn commit(&mut self, changed: &[Arc<Way>]) {
        let ways = changed.iter().map(|way| way.commit());
        let failures = [self.router.commit()]
            .into_iter()
            .chain(ways)
            .filter_map(Result::err);
        for error in failures {
            if !mem::replace(&mut self.routes.has_warned, true) {
                log::warn!(
                    "An interrupt does not follow its remapping entry: {}; further failures are not reported",
                    Chain(&*error)
                );
            }
        }
    }

    /// No pin sends anything: the machine's router outlives a reset, and would keep what the last boot set.
    pub(crate) fn clear_pins(&mut self) {
        self.routes.pins = Default::default();
        (0..PINS).for_each(|pin| self.router.set_pin(pin, None));
        self.commit(&[]);
    }

    fn each_way(&mut self, mut visit: impl FnMut(&mut Self, &Way)) {
        for index in 0..self.routes.ways.len() {
            if let Some(way) = self.routes.ways[index].upgrade() {
                visit(self, &way);
            }
        }
    }

    fn send(&mut self, source: &Source, message: MsiMessage) {
        match self.remap(source, message) {
            Ok(message) => self.router.send(message),
            Err(fault) => self.record(fault),
        }
    }

    fn set_pin(&mut self, number: u8, source: &Source, message: Option<MsiMessage>) {
        let sent = message.and_then(|message| self.remap(source, message).ok());
        let Some(slot) = self.routes.pins.get_mut(usize::from(number)) else {
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

    /// The message a CPU gets for the one a source sends (§5.1.5.2).
    fn remap(&self, source: &Source, message: MsiMessage) -> Result<MsiMessage, Fault> {
        let status = self.registers.status;
        if !status.interrupt_remapping() {
            return Ok(message);
        }
        let fault = |silent, reason, index: u32| Fault {
            reason,
            silent,
            source: source.id(),
            info: u64::from(index) << 48,
            is_read: false,
        };
        let index = match index(message) {
            Ok(index) => index,
            Err(Reason::CompatibilityBlocked)
                if status.compatibility_interrupts() && !self.remap_table.extended() =>
            {
                return Ok(message);
            }
            Err(reason) => return Err(fault(false, reason, 0)),
        };
        if index >= 2 << self.remap_table.size() {
            return Err(fault(false, Reason::IndexTooLarge, index));
        }
        let at = (self.remap_table.frame() * PAGE).saturating_add(u64::from(index) * IRTE);
        let quad = |at| self.memory.load(GuestAddress(at));
        let (Some(low), Some(high)) = (quad(at), quad(at.saturating_add(8))) else {
            return Err(fault(false, Reason::IrteUnreadable, index));
        };
        let (low, high) = (IrteLow::from_bits(low), IrteHigh::from_bits(high));
        check(low, high, source).map_err(|reason| fault(low.silent(), reason, index))?;
        Ok(output(low, self.remap_table.extended()))
    }
}

/// The table index that a message names.
fn index(message: MsiMessage) -> Result<u32, Reason> {
    let address = u32::try_from(message.address).map_err(|_| Reason::RequestReserved)?;
    let (address, data) = (
        RequestAddress::from_bits(address),
        RequestData::from_bits(message.data),
    );
    if address.window() != WINDOW {
        return Err(Reason::RequestReserved);
    }
    if !address.remappable() {
        return Err(Reason::CompatibilityBlocked);
    }
    let handle = u32::from(address.handle()) | u32::from(address.handle_15()) << 15;
    match (address.has_subhandle(), data.reserved()) {
        (false, _) => Ok(handle),
        (true, 0) => Ok(handle + u32::from(data.subhandle())),
        (true, _) => Err(Reason::RequestReserved),
    }
}

fn check(low: IrteLow, high: IrteHigh, source: &Source) -> Result<(), Reason> {
    if !low.present() {
        return Err(Reason::IrteNotPresent);
    }
    // Posted interrupts are not offered.
    let reserved = low.reserved() != 0 || low.reserved_high() != 0 || high.reserved() != 0;
    if reserved || low.posted() {
        return Err(Reason::IrteReserved);
    }
    let Source::Function(requester) = source else {
        return Ok(());
    };
    let (id, entry) = (requester.id().0, high.source());
    let [first, last] = entry.to_be_bytes();
    let is_valid = match high.validation() {
        validation::NONE => true,
        validation::SOURCE => (id ^ entry) & SOURCE_MASKS[usize::from(high.qualifier())] == 0,
        validation::BUS => (first..=last).contains(&(id >> 8).to_le_bytes()[0]),
        _ => return Err(Reason::IrteReserved),
    };
    is_valid.then_some(()).ok_or(Reason::SourceInvalid)
}

fn output(entry: IrteLow, extended: bool) -> MsiMessage {
    let destination = match extended {
        true => entry.destination(),
        false => entry.destination() >> 8 & 0xff,
    };
    let [low, ..] = destination.to_le_bytes();
    let address = MessageAddress::new()
        .with_logical(entry.logical())
        .with_redirection_hint(entry.redirection_hint())
        .with_destination(low)
        .with_window(WINDOW);
    let data = MessageData::new()
        .with_vector(entry.vector())
        .with_delivery_mode(entry.delivery_mode())
        .with_assert(true)
        .with_level(entry.level());
    // KVM and x2APIC hosts take the upper bits of the APIC id from the upper address.
    let upper = u64::from(destination - u32::from(low)) << 32;
    MsiMessage {
        address: upper | u64::from(address.into_bits()),
        data: data.into_bits(),
    }
}

/// A router for one source, with the unit in front of the machine's.
pub struct RemappingRouter {
    vtd: Arc<Vtd>,
    source: Source,
}

impl RemappingRouter {
    /// What `source` sends goes through `vtd`.
    pub fn new(vtd: Arc<Vtd>, source: Source) -> Arc<Self> {
        Arc::new(Self { vtd, source })
    }
}

impl MsiRouter for RemappingRouter {
    fn send(&self, message: MsiMessage) {
        self.vtd.lock().send(&self.source, message);
    }

    fn set_pin(&self, pin: u8, message: Option<MsiMessage>) {
        self.vtd.lock().set_pin(pin, &self.source, message);
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        let mut unit = self.vtd.lock();
        let way = Arc::new(Way {
            source: self.source.clone(),
            inner: unit.router.route()?,
            state: Mutex::default(),
        });
        unit.routes.add(&way);
        drop(unit);
        Ok(Arc::new(RemappedRoute {
            vtd: self.vtd.clone(),
            way,
        }))
    }

    fn commit(&self) -> Result<(), RouteError> {
        self.vtd.lock().router.commit()
    }
}

/// A route as its function sees it.
struct RemappedRoute {
    vtd: Arc<Vtd>,
    way: Arc<Way>,
}

impl MsiRoute for RemappedRoute {
    fn set(&self, message: Option<MsiMessage>) {
        let mut unit = self.vtd.lock();
        self.way.state().wanted = message;
        self.way.apply(&mut unit);
    }

    // Without the unit's lock: whoever translates the route again meanwhile commits it, too.
    fn commit(&self) -> Result<(), RouteError> {
        self.way.commit()
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.way.inner.event()
    }

    fn pending(&self) -> bool {
        let is_masked = self.way.state().wanted.is_none();
        is_masked && self.way.inner.pending()
    }

    fn discard(&self) -> bool {
        let is_masked = self.way.state().wanted.is_none();
        is_masked && self.way.inner.discard()
    }
}

/// Both ends of a route. Locks: the unit, then the state.
struct Way {
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
    /// Marks the route behind with what comes out of the table now; nothing, and false, if it has that already.
    fn apply(&self, unit: &mut Unit) -> bool {
        // What fired while the way was blocked is lost, and shall not come late.
        self.report(unit);
        let mut state = self.state();
        let outcome = state.wanted.map(|message| unit.remap(&self.source, message));
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

    /// A way whose message is refused leads nowhere, and the next translation tries again.
    fn commit(&self) -> Result<(), RouteError> {
        self.inner.commit().inspect_err(|_| {
            self.state().sent = None;
            self.inner.set(None);
            let _still_refused = self.inner.commit();
        })
    }

    /// Records a fault and drops the interrupt, if one fired on a blocked way.
    fn report(&self, unit: &mut Unit) {
        if let Some(fault) = self.state().blocked
            && self.inner.discard()
        {
            unit.record(fault);
        }
    }

    fn state(&self) -> MutexGuard<'_, WayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unit {
    /// Records a fault for each interrupt that fired on a route which leads nowhere. Such a route holds its
    /// event back, so this is when it is seen; several since the last time are one.
    pub(crate) fn report_blocked(&mut self) {
        self.each_way(|unit, way| way.report(unit));
    }
}

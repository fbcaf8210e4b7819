//! Invalidations: the queue (§6.5.2) and the older registers (§6.5.1).
//!
//! The queue runs on the thread that writes its tail, up to the tail it finds. What was asked for between two waits
//! is done together, before the wait completes.

use std::mem;
use std::ops::Range;

use vm_memory::GuestAddress;

use super::capability::MAX_ADDRESS_MASK;
use super::domains::ContextScope;
use super::interrupt_remap::EntryScope;
use super::shadow::EVERYTHING;
use super::spec::descriptors::{
    ContextDescriptor, DESCRIPTOR, Head, InterruptEntryDescriptor, IotlbDescriptor, STATUS_ADDRESS,
    WaitDescriptor, kind,
};
use super::spec::registers::{InvalidateAddress, granularity};
use super::spec::tables::PAGE;
use super::turn::Turn;
use super::unit::Unit;
use super::work::Goal;

/// How often the guest invalidated what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvalidationStats {
    /// Context entries.
    pub contexts: u64,
    /// All translations, or those of a domain.
    pub domains: u64,
    /// Translations of a range of pages.
    pub pages: u64,
    /// Interrupt entries.
    pub interrupt_entries: u64,
    /// Waits completed.
    pub waits: u64,
}

/// One thing the guest asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Context(ContextScope),
    Iotlb(IotlbScope),
    InterruptEntries(EntryScope),
    Wait(Wait),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum IotlbScope {
    Global,
    Domain(u16),
    Pages(u16, Range<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    store: Option<(GuestAddress, u32)>,
    interrupt: bool,
}

/// A descriptor that means nothing, or could not be obeyed.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// What was read and not begun yet: since the last wait, at most as much as one turn reads. The room is kept.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) contexts: Vec<ContextScope>,
    iotlb: Vec<IotlbScope>,
    pub(crate) entries: Vec<EntryScope>,
}

/// What a descriptor costs, in table entries read.
const DESCRIPTOR_COST: u64 = 8;

impl Unit {
    /// Reads the queue up to the next wait, or to its tail, and begins with what it asks for. False if it asks for
    /// nothing.
    pub(crate) fn run_queue(&mut self, turn: &mut Turn) -> bool {
        if !self.registers.status.queue() || self.registers.faults.has_queue_error() {
            return false;
        }
        let tail = self.registers.queue_tail;
        if tail >= self.queue_len() || self.queue.wide() {
            self.begin(Some(Goal::QueueError));
            return true;
        }
        while self.registers.queue_head != tail {
            if turn.is_over() {
                // What was read is obeyed before more is read: it is never more than a turn's worth.
                self.begin(None);
                return true;
            }
            turn.pay_entries(DESCRIPTOR_COST);
            match self.read_one() {
                Ok(None) => self.pass_one(),
                Ok(Some(wait)) => {
                    self.begin(Some(Goal::Wait(wait)));
                    return true;
                }
                Err(Malformed) => {
                    self.begin(Some(Goal::QueueError));
                    return true;
                }
            }
        }
        if self.pending.is_empty() {
            return false;
        }
        self.begin(None);
        true
    }

    fn queue_len(&self) -> u64 {
        PAGE << self.queue.size()
    }

    /// Notes what the descriptor at the head asks for; a wait is handed back.
    fn read_one(&mut self) -> Result<Option<Wait>, Malformed> {
        let at = (self.queue.frame() * PAGE).saturating_add(self.registers.queue_head);
        let quad = |at| self.memory.load(GuestAddress(at)).ok_or(Malformed);
        match decode(quad(at)?, quad(at.saturating_add(8))?)? {
            Request::Context(scope) => {
                self.invalidations.contexts += 1;
                self.pending.contexts.push(scope);
            }
            Request::Iotlb(scope) => self.pend_iotlb(scope),
            Request::InterruptEntries(scope) => {
                self.invalidations.interrupt_entries += 1;
                self.pending.entries.push(scope);
            }
            Request::Wait(wait) => return Ok(Some(wait)),
        }
        Ok(None)
    }

    /// The head goes on to the next descriptor.
    fn pass_one(&mut self) {
        self.registers.queue_head = (self.registers.queue_head + DESCRIPTOR) % self.queue_len();
    }

    /// Everything before the wait is done.
    pub(crate) fn end_wait(&mut self, wait: Wait) {
        match self.complete(wait) {
            Ok(()) => self.pass_one(),
            Err(Malformed) => self.stop_queue(),
        }
    }

    /// The status comes last: the guest frees what it unmapped as soon as it sees it.
    fn complete(&mut self, wait: Wait) -> Result<(), Malformed> {
        self.invalidations.waits += 1;
        if let Some((at, data)) = wait.store
            && !self.memory.store(at, data)
        {
            return Err(Malformed);
        }
        if wait.interrupt
            && let Some(event) = self.registers.complete()
        {
            self.router.send(event);
        }
        Ok(())
    }

    pub(crate) fn stop_queue(&mut self) {
        log::debug!("The invalidation queue stops at {:#x}", self.registers.queue_head);
        if let Some(event) = self.registers.faults.set_queue_error() {
            self.router.send(event);
        }
    }

    /// Tells devices and routes what is pending: contexts first, since translations depend on them.
    pub(crate) fn note_pending(&mut self) {
        let mut pending = mem::take(&mut self.pending);
        self.resolve(&pending.contexts);
        for scope in &pending.iotlb {
            match scope {
                IotlbScope::Global => self.invalidate(None, &EVERYTHING),
                IotlbScope::Domain(domain) => self.invalidate(Some(*domain), &EVERYTHING),
                IotlbScope::Pages(domain, range) => self.invalidate(Some(*domain), range),
            }
        }
        self.order_invalidated();
        pending.contexts.clear();
        pending.iotlb.clear();
        self.pending = pending;
        self.begin_retranslation();
    }

    fn pend_iotlb(&mut self, scope: IotlbScope) {
        match scope {
            IotlbScope::Pages(..) => self.invalidations.pages += 1,
            _ => self.invalidations.domains += 1,
        }
        self.pending.iotlb.push(scope);
    }

    /// CCMD with ICC set. With the queue on it is not to be used; the busy bit is cleared all the same.
    pub(crate) fn context_command(&mut self) {
        let command = self.registers.context_command;
        let scope = context_scope(
            command.requested(),
            command.domain(),
            command.source(),
            command.function_mask(),
        );
        let scope = scope.filter(|_| !self.registers.status.queue());
        let actual = scope.map_or(0, |_| command.requested());
        self.invalidations.contexts += u64::from(scope.is_some());
        self.pending.contexts.extend(scope);
        self.begin(Some(Goal::Context(actual)));
    }

    /// IOTLB with IVT set, under the same rule.
    pub(crate) fn iotlb_command(&mut self) {
        let command = self.registers.iotlb_command;
        let address = self.registers.invalidate_address;
        let scope = iotlb_scope(command.requested(), command.domain(), address);
        let scope = scope.ok().filter(|_| !self.registers.status.queue());
        let actual = scope.as_ref().map_or(0, |_| command.requested());
        if let Some(scope) = scope {
            self.pend_iotlb(scope);
        }
        self.begin(Some(Goal::Iotlb(actual)));
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.contexts.is_empty() && self.iotlb.is_empty() && self.entries.is_empty()
    }
}

fn decode(low: u64, high: u64) -> Result<Request, Malformed> {
    let head = Head::from_bits(low);
    if head.kind_high() != 0 {
        return Err(Malformed);
    }
    match head.kind() {
        kind::CONTEXT => decode_context(ContextDescriptor::from_bits(low), high),
        kind::IOTLB => decode_iotlb(
            IotlbDescriptor::from_bits(low),
            InvalidateAddress::from_bits(high),
        ),
        kind::INTERRUPT_ENTRY => decode_entries(InterruptEntryDescriptor::from_bits(low), high),
        kind::WAIT => decode_wait(WaitDescriptor::from_bits(low), high),
        _ => Err(Malformed),
    }
}

fn decode_context(low: ContextDescriptor, high: u64) -> Result<Request, Malformed> {
    if low.reserved() != 0 || low.reserved_high() != 0 || high != 0 {
        return Err(Malformed);
    }
    context_scope(low.granularity(), low.domain(), low.source(), low.function_mask())
        .map(Request::Context)
        .ok_or(Malformed)
}

fn decode_iotlb(low: IotlbDescriptor, address: InvalidateAddress) -> Result<Request, Malformed> {
    if low.reserved() != 0 || low.reserved_high() != 0 {
        return Err(Malformed);
    }
    iotlb_scope(low.granularity(), low.domain(), address).map(Request::Iotlb)
}

fn decode_entries(low: InterruptEntryDescriptor, high: u64) -> Result<Request, Malformed> {
    if low.reserved() != 0 || low.reserved_high() != 0 || high != 0 {
        return Err(Malformed);
    }
    let scope = match low.by_index() {
        true => EntryScope::range(low.index(), low.mask()),
        false => EntryScope::All,
    };
    Ok(Request::InterruptEntries(scope))
}

/// Status and interrupt may both be asked for; neither is a mere fence, and order is kept anyway.
fn decode_wait(low: WaitDescriptor, high: u64) -> Result<Request, Malformed> {
    let idle = !low.store() && !low.interrupt() && !low.fence();
    if low.reserved() != 0 || high & !STATUS_ADDRESS != 0 || idle {
        return Err(Malformed);
    }
    Ok(Request::Wait(Wait {
        store: low.store().then_some((GuestAddress(high), low.data())),
        interrupt: low.interrupt(),
    }))
}

fn context_scope(granularity: u8, domain: u16, source: u16, mask: u8) -> Option<ContextScope> {
    match granularity {
        granularity::GLOBAL => Some(ContextScope::Global),
        granularity::DOMAIN => Some(ContextScope::Domain(domain)),
        granularity::SINGLE => Some(ContextScope::device(source, mask)),
        _ => None,
    }
}

fn iotlb_scope(granularity: u8, domain: u16, address: InvalidateAddress) -> Result<IotlbScope, Malformed> {
    match granularity {
        granularity::GLOBAL => Ok(IotlbScope::Global),
        granularity::DOMAIN => Ok(IotlbScope::Domain(domain)),
        granularity::SINGLE if address.mask() <= MAX_ADDRESS_MASK && address.reserved() == 0 => {
            let len = PAGE << address.mask();
            let start = (address.frame() * PAGE) & !(len - 1);
            Ok(IotlbScope::Pages(domain, start..start.saturating_add(len)))
        }
        _ => Err(Malformed),
    }
}

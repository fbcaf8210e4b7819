//! Invalidations: the queue (§6.5.2) and the older registers (§6.5.1).
//!
//! The queue runs on the thread that writes its tail, up to the tail it finds. What one writer asked for
//! between two waits is done together, before the wait completes.

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
use super::unit::Unit;

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
struct Wait {
    store: Option<(GuestAddress, u32)>,
    interrupt: bool,
}

/// A descriptor that means nothing, or could not be obeyed.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// What was asked for since the last wait. At most as much as a ring holds; the room is kept.
#[derive(Default)]
pub(crate) struct Pending {
    contexts: Vec<ContextScope>,
    iotlb: Vec<IotlbScope>,
    entries: Vec<EntryScope>,
}

impl Unit {
    /// Runs the queue up to its tail: at most as many descriptors as the ring has.
    pub(crate) fn run_queue(&mut self) {
        if !self.registers.status.queue() || self.registers.faults.has_queue_error() {
            return;
        }
        let len = PAGE << self.queue.size();
        let tail = self.registers.queue_tail;
        if tail >= len || self.queue.wide() {
            return self.stop_queue();
        }
        while self.registers.queue_head != tail {
            if self.run_one().is_err() {
                self.flush();
                return self.stop_queue();
            }
            self.registers.queue_head = (self.registers.queue_head + DESCRIPTOR) % len;
        }
        self.flush();
    }

    fn run_one(&mut self) -> Result<(), Malformed> {
        let at = (self.queue.frame() * PAGE).saturating_add(self.registers.queue_head);
        let quad = |at| self.memory.load(GuestAddress(at)).ok_or(Malformed);
        let request = decode(quad(at)?, quad(at.saturating_add(8))?)?;
        match request {
            Request::Context(scope) => self.pending.contexts.push(scope),
            Request::Iotlb(scope) => self.pending.iotlb.push(scope),
            Request::InterruptEntries(scope) => self.pending.entries.push(scope),
            Request::Wait(wait) => {
                self.flush();
                self.complete(wait)?;
            }
        }
        Ok(())
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

    fn stop_queue(&mut self) {
        log::debug!("The invalidation queue stops at {:#x}", self.registers.queue_head);
        if let Some(event) = self.registers.faults.set_queue_error() {
            self.router.send(event);
        }
    }

    /// Does everything that is pending: contexts first, since translations depend on them.
    fn flush(&mut self) {
        let mut pending = mem::take(&mut self.pending);
        self.invalidations.contexts += pending.contexts.len() as u64;
        self.invalidations.interrupt_entries += pending.entries.len() as u64;
        self.resolve(&pending.contexts);
        for scope in &pending.iotlb {
            self.invalidate_iotlb(scope);
        }
        self.sync_invalidated();
        if !pending.entries.is_empty() {
            self.retranslate(&pending.entries);
        }
        pending.contexts.clear();
        pending.iotlb.clear();
        pending.entries.clear();
        self.pending = pending;
    }

    fn invalidate_iotlb(&mut self, scope: &IotlbScope) {
        match scope {
            IotlbScope::Pages(..) => self.invalidations.pages += 1,
            _ => self.invalidations.domains += 1,
        }
        match scope {
            IotlbScope::Global => self.invalidate(None, &EVERYTHING),
            IotlbScope::Domain(domain) => self.invalidate(Some(*domain), &EVERYTHING),
            IotlbScope::Pages(domain, range) => self.invalidate(Some(*domain), range),
        }
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
        self.pending.contexts.extend(scope);
        self.flush();
        self.registers.context_command = command.with_busy(false).with_actual(actual);
    }

    /// IOTLB with IVT set, under the same rule.
    pub(crate) fn iotlb_command(&mut self) {
        let command = self.registers.iotlb_command;
        let address = self.registers.invalidate_address;
        let scope = iotlb_scope(command.requested(), command.domain(), address);
        let scope = scope.ok().filter(|_| !self.registers.status.queue());
        let actual = scope.as_ref().map_or(0, |_| command.requested());
        self.pending.iotlb.extend(scope);
        self.flush();
        self.registers.iotlb_command = command.with_busy(false).with_actual(actual);
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

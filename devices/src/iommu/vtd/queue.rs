//! The invalidation queue (§6.5.2): a ring of the guest's that says what changed in its tables.
//!
//! It is read on the thread that writes its tail, up to the tail it finds. What was asked for between two waits
//! is done together, before the wait completes.

use std::mem;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::memory::TableMemory;
use super::request::{ContextScope, EntryScope, IotlbScope};
use super::spec::descriptors::{
    ContextDescriptor, DESCRIPTOR, Head, InterruptEntryDescriptor, IotlbDescriptor, STATUS_ADDRESS,
    WaitDescriptor, kind,
};
use super::spec::registers::{InvalidateAddress, QueueAddress};
use super::spec::tables::PAGE;
use super::turn::Turn;

/// How often the guest invalidated what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvalidationStats {
    /// Invalidations of context entries.
    pub contexts: u64,
    /// All translations, or those of a domain.
    pub domains: u64,
    /// Translations of a range of pages.
    pub pages: u64,
    /// Invalidations of interrupt entries.
    pub interrupt_entries: u64,
    /// Waits that were completed.
    pub waits: u64,
}

/// One thing the guest asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Context(ContextScope),
    Iotlb(IotlbScope),
    InterruptEntries(EntryScope),
    Wait(Wait),
}

/// What the guest is told when all before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    store: Option<(GuestAddress, u32)>,
    interrupt: bool,
}

/// A descriptor that means nothing, or could not be obeyed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What was read and not begun yet: since the last wait, at most as much as one turn reads. The room is kept.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) contexts: Vec<ContextScope>,
    pub(super) iotlb: Vec<IotlbScope>,
    pub(super) entries: Vec<EntryScope>,
}

/// What reading came to.
pub(super) enum Found {
    /// The tail, and nothing is pending.
    Nothing,
    /// The tail, or the end of the turn: what is pending is obeyed before more is read.
    Requests,
    /// A wait; the head stays at it until it is done.
    Wait(Wait),
    /// Something that cannot be obeyed.
    Malformed,
}

/// What a descriptor costs, in table entries read.
const DESCRIPTOR_COST: u64 = 8;

/// The queue with what was read of it.
pub(super) struct InvalidationQueue {
    memory: Arc<dyn TableMemory>,
    is_on: bool,
    /// Where the ring is, latched by QIE.
    address: QueueAddress,
    head: u64,
    pending: Pending,
    stats: InvalidationStats,
}

impl InvalidationQueue {
    /// Off, with nothing pending.
    pub(super) fn new(memory: Arc<dyn TableMemory>) -> Self {
        Self {
            memory,
            is_on: false,
            address: QueueAddress::new(),
            head: 0,
            pending: Pending::default(),
            stats: InvalidationStats::default(),
        }
    }

    /// Off; what was read is forgotten.
    pub(super) fn reset(&mut self) {
        self.switch(false, QueueAddress::new());
        self.pending = Pending::default();
    }

    /// QIES: the queue is in use.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// IQH: bytes from the ring's start to the next descriptor.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// How often the guest invalidated what.
    pub(super) fn stats(&self) -> InvalidationStats {
        self.stats
    }

    /// What was read and not begun yet.
    #[cfg(test)]
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// On, at `address`, from a cleared head. Off before the next descriptor: what was read is done.
    pub(super) fn switch(&mut self, on: bool, address: QueueAddress) {
        self.is_on = on;
        self.address = address;
        self.head = 0;
    }

    /// Notes what the guest asks for, here or by a register. A wait is none of it.
    pub(super) fn ask(&mut self, request: Request) {
        match request {
            Request::Context(scope) => {
                self.stats.contexts += 1;
                self.pending.contexts.push(scope);
            }
            Request::Iotlb(scope) => {
                match scope {
                    IotlbScope::Pages(..) => self.stats.pages += 1,
                    _ => self.stats.domains += 1,
                }
                self.pending.iotlb.push(scope);
            }
            Request::InterruptEntries(scope) => {
                self.stats.interrupt_entries += 1;
                self.pending.entries.push(scope);
            }
            Request::Wait(_) => {}
        }
    }

    /// A global command changed what all context entries, or all interrupt entries, mean. The guest invalidated
    /// nothing, so it is not counted.
    pub(super) fn note_everything(&mut self, contexts: bool, entries: bool) {
        self.pending
            .contexts
            .extend(contexts.then_some(ContextScope::Global));
        self.pending.entries.extend(entries.then_some(EntryScope::All));
    }

    /// Hands over what is pending; to be given back by [`keep_room`](Self::keep_room).
    pub(super) fn take_pending(&mut self) -> Pending {
        mem::take(&mut self.pending)
    }

    /// Takes the room for what is read next.
    pub(super) fn keep_room(&mut self, mut done: Pending) {
        done.contexts.clear();
        done.iotlb.clear();
        done.entries.clear();
        self.pending = done;
    }

    /// Reads up to the next wait, or to `tail`, bytes from the ring's start.
    pub(super) fn read(&mut self, tail: u64, turn: &mut Turn) -> Found {
        if tail >= self.len_bytes() || self.address.wide() {
            return Found::Malformed;
        }
        while self.head != tail {
            if turn.is_over() {
                return Found::Requests;
            }
            turn.pay_entries(DESCRIPTOR_COST);
            match self.read_one() {
                Ok(Request::Wait(wait)) => return Found::Wait(wait),
                Ok(request) => {
                    self.ask(request);
                    self.pass_one();
                }
                Err(Malformed) => return Found::Malformed,
            }
        }
        match self.pending.is_empty() {
            true => Found::Nothing,
            false => Found::Requests,
        }
    }

    /// Everything before the wait is done. The status comes last: the guest frees what it unmapped as soon as it
    /// sees it. True if the guest wants an interrupt, too.
    pub(super) fn complete(&mut self, wait: Wait) -> Result<bool, Malformed> {
        self.stats.waits += 1;
        if let Some((at, data)) = wait.store
            && !self.memory.store(at, data)
        {
            return Err(Malformed);
        }
        self.pass_one();
        Ok(wait.interrupt)
    }

    fn len_bytes(&self) -> u64 {
        PAGE << self.address.size()
    }

    fn read_one(&self) -> Result<Request, Malformed> {
        let at = (self.address.frame() * PAGE).saturating_add(self.head);
        let quad = |at| self.memory.load(GuestAddress(at)).ok_or(Malformed);
        decode(quad(at)?, quad(at.saturating_add(8))?)
    }

    /// The head goes on to the next descriptor.
    fn pass_one(&mut self) {
        self.head = (self.head + DESCRIPTOR) % self.len_bytes();
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
    ContextScope::decode(low.granularity(), low.domain(), low.source(), low.function_mask())
        .map(Request::Context)
        .ok_or(Malformed)
}

fn decode_iotlb(low: IotlbDescriptor, address: InvalidateAddress) -> Result<Request, Malformed> {
    if low.reserved() != 0 || low.reserved_high() != 0 {
        return Err(Malformed);
    }
    IotlbScope::decode(low.granularity(), low.domain(), address)
        .map(Request::Iotlb)
        .ok_or(Malformed)
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

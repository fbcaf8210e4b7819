//! Recording fakes of the seams, for unit tests: what was routed, mapped and bound can be looked at.
//!
//! They panic where a test has gone wrong; nothing here is built into the product.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub mod fuzz;
mod registers;

pub use registers::Registers;

use crate::address_space::{MapError, MapListener, Mapping};
use crate::device::{Device, Effect};
use crate::dma::{Access, Domain, DomainError, Iova};
use crate::irq::{IrqLine, MsiMessage, MsiRoute, MsiRouter, RouteError};
use crate::pci::capability::{BindError, VectorBinder};
use crate::range_map::RangeMap;
use crate::region::{HostAddress, HostBacking};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no test thread panics while it holds a fake's lock")
}

/// A router that keeps every route it made and every message it was given.
#[derive(Default)]
pub struct FakeRouter {
    routes: Mutex<Vec<Arc<FakeRoute>>>,
    sent: Mutex<Vec<MsiMessage>>,
    pins: Mutex<Vec<(u8, Option<MsiMessage>)>>,
    exhausted: AtomicBool,
    changes: Arc<Mutex<Changes>>,
}

/// How often the interrupt hardware was told of something.
#[derive(Default)]
struct Changes {
    count: u64,
    /// Within [`MsiRouter::together`]: whether anything was set yet.
    held: Option<bool>,
}

impl Changes {
    fn note(&mut self) {
        match &mut self.held {
            Some(changed) => *changed = true,
            None => self.count += 1,
        }
    }
}

impl FakeRouter {
    /// A router with no limit.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses to make further routes.
    pub fn exhaust(&self) {
        self.exhausted.store(true, Ordering::Relaxed);
    }

    /// The routes, in the order they were made.
    pub fn routes(&self) -> Vec<Arc<FakeRoute>> {
        lock(&self.routes).clone()
    }

    /// Messages delivered by [`MsiRouter::send`].
    pub fn sent(&self) -> Vec<MsiMessage> {
        lock(&self.sent).clone()
    }

    /// Changes of the interrupt hardware; what was set together is one.
    pub fn changes(&self) -> u64 {
        lock(&self.changes).count
    }

    /// Calls of [`MsiRouter::set_pin`].
    pub fn pins(&self) -> Vec<(u8, Option<MsiMessage>)> {
        lock(&self.pins).clone()
    }
}

impl MsiRouter for FakeRouter {
    fn send(&self, message: MsiMessage) {
        lock(&self.sent).push(message);
    }

    fn set_pin(&self, pin: u8, message: Option<MsiMessage>) {
        lock(&self.pins).push((pin, message));
        lock(&self.changes).note();
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        if self.exhausted.load(Ordering::Relaxed) {
            return Err("no interrupt route is left".into());
        }
        let route = Arc::new(FakeRoute::new(Arc::clone(&self.changes)));
        lock(&self.routes).push(Arc::clone(&route));
        Ok(route)
    }

    fn together(&self, settings: &mut dyn FnMut()) {
        lock(&self.changes).held = Some(false);
        settings();
        let mut changes = lock(&self.changes);
        if changes.held.take() == Some(true) {
            changes.count += 1;
        }
    }
}

/// A route whose event is the write end of a pipe: a byte in it is a signal.
pub struct FakeRoute {
    settings: Mutex<Vec<Option<MsiMessage>>>,
    pending: AtomicBool,
    events: PipeReader,
    event: PipeWriter,
    changes: Arc<Mutex<Changes>>,
}

impl FakeRoute {
    fn new(changes: Arc<Mutex<Changes>>) -> Self {
        let (events, event) = pipe().expect("a test may open two more files");
        Self {
            settings: Mutex::default(),
            pending: AtomicBool::new(false),
            events,
            event,
            changes,
        }
    }

    /// Every call of [`MsiRoute::set`].
    pub fn settings(&self) -> Vec<Option<MsiMessage>> {
        lock(&self.settings).clone()
    }

    /// What the route sends now.
    pub fn message(&self) -> Option<MsiMessage> {
        lock(&self.settings).last().copied().flatten()
    }

    /// Makes the pending bit read as `pending`.
    pub fn set_pending(&self, pending: bool) {
        self.pending.store(pending, Ordering::Relaxed);
    }

    /// Signals the event, as hardware would.
    pub fn signal(&self) {
        (&self.event)
            .write_all(&[1])
            .expect("the pipe has room for a test's signals");
    }

    /// Takes one signal; blocks if there is none.
    pub fn take_signal(&self) {
        (&self.events)
            .read_exact(&mut [0])
            .expect("the write end is open");
    }
}

impl MsiRoute for FakeRoute {
    fn set(&self, message: Option<MsiMessage>) -> Result<(), RouteError> {
        lock(&self.settings).push(message);
        lock(&self.changes).note();
        Ok(())
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    fn discard(&self) -> bool {
        self.pending.swap(false, Ordering::Relaxed)
    }
}

/// What a [`FakeBinder`] was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// These vectors were bound, of so many.
    Bind {
        /// The span.
        span: u16,
        /// The vectors in the order they were given.
        vectors: Vec<u16>,
    },
    /// Everything was untied.
    Release,
}

/// Hardware vectors that record what is bound.
#[derive(Default)]
pub struct FakeBinder {
    calls: Mutex<Vec<Binding>>,
    broken: AtomicBool,
}

impl FakeBinder {
    /// A binder that accepts everything.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses (`true`) or accepts what comes.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// The calls so far, refused ones left out.
    pub fn calls(&self) -> Vec<Binding> {
        lock(&self.calls).clone()
    }
}

impl VectorBinder for FakeBinder {
    fn bind(&self, span: u16, events: &[(u16, BorrowedFd<'_>)]) -> Result<(), BindError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err("the device is gone".into());
        }
        let vectors = events.iter().map(|(vector, _)| *vector).collect();
        lock(&self.calls).push(Binding::Bind { span, vectors });
        Ok(())
    }

    fn release(&self) {
        lock(&self.calls).push(Binding::Release);
    }
}

/// A wire that keeps the levels it was given.
#[derive(Default)]
pub struct FakeLine {
    levels: Mutex<Vec<bool>>,
}

impl FakeLine {
    /// A low wire.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Every level that was set, in order.
    pub fn levels(&self) -> Vec<bool> {
        lock(&self.levels).clone()
    }

    /// True when the wire is high now.
    pub fn is_high(&self) -> bool {
        lock(&self.levels).last().copied().unwrap_or(false)
    }
}

impl IrqLine for FakeLine {
    fn set_level(&self, high: bool) {
        lock(&self.levels).push(high);
    }
}

/// One mapping of a [`FakeDomain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeDmaMapping {
    /// Where the device sees it.
    pub iova: Iova,
    /// What it reaches.
    pub host: HostAddress,
    /// How much.
    pub len_bytes: u64,
    /// How.
    pub access: Access,
}

/// A domain with the rules of a type1v2 container: no overlap, no split.
#[derive(Default)]
pub struct FakeDomain {
    mappings: Mutex<RangeMap<FakeDmaMapping>>,
    calls: Mutex<Vec<DmaCall>>,
    refused: AtomicBool,
    stuck: AtomicBool,
    /// Mappings that fit, if there is a limit.
    limit: Mutex<Option<usize>>,
}

impl FakeDomain {
    /// An empty domain.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Has room for `limit` mappings from now on.
    pub fn set_limit(&self, limit: usize) {
        *lock(&self.limit) = Some(limit);
    }

    /// Refuses (`true`) or accepts what comes.
    pub fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// Refuses (`true`) or accepts to unmap.
    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Takes the calls since the last time.
    pub fn take_calls(&self) -> Vec<DmaCall> {
        std::mem::take(&mut lock(&self.calls))
    }

    /// What is mapped now, by ascending address.
    pub fn mappings(&self) -> Vec<FakeDmaMapping> {
        lock(&self.mappings)
            .iter()
            .map(|(_, _, mapping)| *mapping)
            .collect()
    }
}

impl Domain for FakeDomain {
    fn map(&self, iova: Iova, host: HostAddress, len_bytes: u64, access: Access) -> Result<(), DomainError> {
        if self.refused.load(Ordering::Relaxed) {
            return Err("the domain refuses to map".into());
        }
        let mapping = FakeDmaMapping {
            iova,
            host,
            len_bytes,
            access,
        };
        let mut mappings = lock(&self.mappings);
        if lock(&self.limit).is_some_and(|limit| mappings.iter().count() >= limit) {
            return Err("the domain is full".into());
        }
        mappings
            .insert(iova.0, len_bytes, mapping)
            .map_err(|_| "the range is taken")?;
        lock(&self.calls).push(DmaCall::Map(iova.0, len_bytes));
        Ok(())
    }

    fn unmap(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        let mut mappings = lock(&self.mappings);
        match mappings.get(iova.0) {
            Some((start, _, mapping)) if start == iova.0 && mapping.len_bytes == len_bytes => {
                mappings.remove(start);
                Ok(())
            }
            _ => Err("no such mapping".into()),
        }
    }

    fn unmap_all(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err("the domain refuses to unmap".into());
        }
        let end = iova.0 + len_bytes;
        let mut mappings = lock(&self.mappings);
        let touched: Vec<_> = mappings
            .iter()
            .filter(|(start, last, _)| *start < end && iova.0 <= *last)
            .map(|(start, last, _)| (start, last))
            .collect();
        if touched
            .iter()
            .any(|(start, last)| *start < iova.0 || *last >= end)
        {
            return Err("the range cuts a mapping".into());
        }
        lock(&self.calls).push(DmaCall::Unmap(iova.0, len_bytes));
        for (start, _) in touched {
            mappings.remove(start);
        }
        Ok(())
    }
}

/// A call of a [`FakeDomain`] that was accepted: address and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaCall {
    /// `map`.
    Map(u64, u64),
    /// `unmap_all`.
    Unmap(u64, u64),
}

/// What a [`FakeListener`] heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A piece appeared at this guest address, this long.
    Map(u64, u64),
    /// A piece went away.
    Unmap(u64, u64),
}

/// A listener that keeps what it hears.
#[derive(Default)]
pub struct FakeListener {
    heard: Mutex<Vec<Heard>>,
    refused: AtomicBool,
}

impl FakeListener {
    /// A listener that accepts everything.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses (`true`) or accepts what comes.
    pub fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// The calls so far.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.heard).clone()
    }
}

impl MapListener for FakeListener {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        if self.refused.load(Ordering::Relaxed) {
            return Err("the listener refuses to map".into());
        }
        lock(&self.heard).push(Heard::Map(mapping.at.0, mapping.backing.len_bytes()));
        Ok(())
    }

    fn unmap(&self, mapping: &Mapping) {
        lock(&self.heard).push(Heard::Unmap(mapping.at.0, mapping.backing.len_bytes()));
    }
}

/// A backing that promises an address nobody may touch.
#[derive(Clone, Copy, Debug)]
pub struct FakeBacking {
    /// The address it claims.
    pub host: HostAddress,
    /// The length it claims.
    pub len_bytes: u64,
}

impl HostBacking for FakeBacking {
    fn host_address(&self) -> HostAddress {
        self.host
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

/// A device that is nothing but bytes, and remembers each write.
pub struct RamDevice {
    name: String,
    bytes: Mutex<Vec<u8>>,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl RamDevice {
    /// `len` zero bytes.
    pub fn new(name: &str, len: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            bytes: Mutex::new(vec![0; len]),
            writes: Mutex::default(),
        })
    }

    /// The writes so far: offset and data.
    pub fn writes(&self) -> Vec<(u64, Vec<u8>)> {
        lock(&self.writes).clone()
    }
}

impl Device for RamDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).expect("tests stay small");
        data.copy_from_slice(&lock(&self.bytes)[start..][..data.len()]);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let start = usize::try_from(offset).expect("tests stay small");
        lock(&self.bytes)[start..][..data.len()].copy_from_slice(data);
        lock(&self.writes).push((offset, data.to_vec()));
        Effect::None
    }
}

//! Fakes of where interrupts go.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::irq::{IrqLine, MsiMessage, MsiRoute, MsiRouter, RouteError};
use crate::pci::capability::{BindError, VectorBinder};

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
    /// Settings of routes and pins, each for itself.
    sets: u64,
    /// Something was set since the last commit.
    is_stale: bool,
}

impl Changes {
    fn note(&mut self) {
        self.sets += 1;
        self.is_stale = true;
    }

    fn commit(&mut self) {
        self.count += u64::from(std::mem::take(&mut self.is_stale));
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

    /// Changes of the interrupt hardware: commits that found something marked.
    pub fn changes(&self) -> u64 {
        lock(&self.changes).count
    }

    /// Settings of routes and pins so far, each for itself.
    pub fn sets(&self) -> u64 {
        lock(&self.changes).sets
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

    fn commit(&self) -> Result<(), RouteError> {
        lock(&self.changes).commit();
        Ok(())
    }
}

/// A route whose event is the write end of a pipe: a byte in it is a signal.
pub struct FakeRoute {
    settings: Mutex<Vec<Option<MsiMessage>>>,
    pending: AtomicBool,
    broken: AtomicBool,
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
            broken: AtomicBool::new(false),
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

    /// Refuses (`true`) or accepts messages from the next commit on.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
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
    fn set(&self, message: Option<MsiMessage>) {
        lock(&self.settings).push(message);
        lock(&self.changes).note();
    }

    fn commit(&self) -> Result<(), RouteError> {
        lock(&self.changes).commit();
        match self.broken.load(Ordering::Relaxed) && self.message().is_some() {
            true => Err("the interrupt hardware refuses".into()),
            false => Ok(()),
        }
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

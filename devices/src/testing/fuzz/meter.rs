//! The unit as a guest's CPU drives it, with an eye on what each turn costs: meanwhile the unit's lock is held, and
//! the CPU cannot be stopped.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::dma::{BusMaster, Renumbered};
use crate::iommu::vtd::Vtd;
use crate::region::{Device, Effect, Unfinished};
use crate::testing::FakeRouter;

/// Bytes mapped and unmapped in a turn at most.
pub(super) const BYTES: u64 = 1 << 30;
/// Calls of the host, and routes changed.
const CALLS: u64 = 1024;

/// What was done since the turn began.
#[derive(Clone)]
pub(super) struct Meter {
    counts: Arc<Counts>,
    router: Arc<FakeRouter>,
}

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    calls: AtomicU64,
}

impl Meter {
    pub(super) fn new(router: Arc<FakeRouter>) -> Self {
        let counts = Arc::default();
        Self { counts, router }
    }

    /// A domain mapped or unmapped.
    pub(super) fn note(&self, bytes: u64) {
        self.counts.bytes.fetch_add(bytes, Relaxed);
        self.counts.calls.fetch_add(1, Relaxed);
    }

    /// What `work` costs is within bounds, and so is what it leaves to be done later.
    fn turn(&self, work: impl FnOnce() -> Effect) -> Effect {
        let effect = self.check(work);
        match effect {
            Effect::More(remaps, inner) => {
                let meter = self.clone();
                Effect::More(remaps, Arc::new(Rest { inner, meter }))
            }
            effect => effect,
        }
    }

    fn check<T>(&self, work: impl FnOnce() -> T) -> T {
        self.counts.bytes.store(0, Relaxed);
        self.counts.calls.store(0, Relaxed);
        let before = self.router.sets();
        let result = work();
        let (bytes, calls) = (self.counts.bytes.load(Relaxed), self.counts.calls.load(Relaxed));
        let routes = self.router.sets() - before;
        assert!(
            bytes <= BYTES && calls <= CALLS && routes <= CALLS,
            "{bytes:#x} bytes in {calls} calls and {routes} routes at once"
        );
        result
    }
}

/// The unit behind a meter.
pub(super) struct Metered {
    vtd: Arc<Vtd>,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(vtd: Arc<Vtd>, meter: Meter) -> Self {
        Self { vtd, meter }
    }

    pub(super) fn renumbered(&self) -> Effect {
        self.meter.turn(|| self.vtd.renumbered())
    }

    pub(super) fn set_bus_master(&self, gate: &dyn BusMaster, on: bool) {
        while !self.meter.check(|| gate.set_bus_master(on)) {}
    }
}

impl Deref for Metered {
    type Target = Arc<Vtd>;

    fn deref(&self) -> &Arc<Vtd> {
        &self.vtd
    }
}

impl Device for Metered {
    fn name(&self) -> &str {
        self.vtd.name()
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        self.vtd.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        self.meter.turn(|| self.vtd.write(offset, data))
    }
}

struct Rest {
    inner: Arc<dyn Unfinished>,
    meter: Meter,
}

impl Unfinished for Rest {
    fn go_on(&self) -> Effect {
        self.meter.turn(|| self.inner.go_on())
    }
}

//! The interrupt vectors of one function: from a message the guest wrote to a route that delivers it.

use std::error::Error;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::Chain;
use crate::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};

/// Why the hardware side of a vector could not be tied to its event.
pub type BindError = Box<dyn Error + Send + Sync>;

/// The hardware that raises a function's vectors, for a function that has any.
///
/// The function is in the capability's mode from the guest's own write of its enable bit on: a device may look
/// at the bit when its driver starts it, and decide by it how it will interrupt. A vector is bound when the
/// guest first unmasks it, and stays bound while it is masked and unmasked again: masking costs the hardware
/// nothing (the route holds the event back). Binding one vector must not disturb those that are bound.
pub trait VectorBinder: Send + Sync {
    /// From now on each vector in `events` (ascending, none of them bound yet) signals its event. The first
    /// call after [`release`](Self::release) puts the function into the mode, also with no event at all.
    ///
    /// `span` is how many vectors the function has in use at most: the MSI-X table size, or the number of
    /// messages enabled for MSI.
    ///
    /// # Errors
    /// What the hardware's driver says; none of `events` counts as bound then.
    fn bind(&self, span: u16, events: &[(u16, BorrowedFd<'_>)]) -> Result<(), BindError>;

    /// Unties every vector and leaves the mode: the guest disabled the capability, or the function is reset.
    fn release(&self);
}

/// Routes of one function's vectors, made when a vector is first used and kept until [`Vectors::release`].
pub struct Vectors {
    router: Arc<dyn MsiRouter>,
    binder: Arc<dyn VectorBinder>,
    vectors: Vec<Vector>,
    /// The hardware is in the mode.
    enabled: bool,
    /// Set by the first failure, so that a guest cannot fill the log.
    failed: bool,
}

#[derive(Clone, Default)]
struct Vector {
    route: Option<Arc<dyn MsiRoute>>,
    /// What the route was last told.
    message: Option<MsiMessage>,
    /// The route was told so, and it is not in effect yet.
    is_marked: bool,
    bound: bool,
}

impl Vectors {
    /// `count` silent vectors; no route exists yet.
    pub fn new(count: u16, router: Arc<dyn MsiRouter>, binder: Arc<dyn VectorBinder>) -> Self {
        Self {
            router,
            binder,
            vectors: vec![Vector::default(); usize::from(count)],
            enabled: false,
            failed: false,
        }
    }

    /// Puts the hardware into the mode if it is not, and brings every vector `n` to `message(n)`, with at most
    /// one call to its route each and one to the binder for all; vectors that already are there are left
    /// alone. It is one change of the machine's routes: all are marked before the first is committed.
    pub fn update(&mut self, span: u16, message: impl Fn(u16) -> Option<MsiMessage>) {
        let all = 0..self.count();
        all.clone().for_each(|n| self.mark(n, message(n)));
        all.clone().for_each(|n| self.commit(n));
        self.bind_new(span, all, !self.enabled);
    }

    /// Brings one vector to `message`.
    pub fn set(&mut self, span: u16, n: u16, message: Option<MsiMessage>) {
        self.mark(n, message);
        self.commit(n);
        self.bind_new(span, n..n.saturating_add(1), false);
    }

    /// Silences and unties all vectors and frees their routes; what was pending is gone.
    pub fn release(&mut self) {
        // The hardware first: it holds the events that the routes own.
        if mem::take(&mut self.enabled) {
            self.binder.release();
        }
        self.vectors.fill(Vector::default());
    }

    /// True when an interrupt of vector `n` waits to be unmasked.
    pub fn pending(&self, n: u16) -> bool {
        let route = self
            .vectors
            .get(usize::from(n))
            .and_then(|vector| vector.route.as_ref());
        route.is_some_and(|route| route.pending())
    }

    /// The route of vector `n`, once the guest has used it.
    pub fn route(&self, n: u16) -> Option<&Arc<dyn MsiRoute>> {
        self.vectors.get(usize::from(n))?.route.as_ref()
    }

    /// What vector `n` sends now, `None` while it is silent.
    pub fn message(&self, n: u16) -> Option<MsiMessage> {
        self.vectors.get(usize::from(n))?.message
    }

    fn count(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(u16::MAX)
    }

    fn mark(&mut self, n: u16, message: Option<MsiMessage>) {
        let Some(vector) = self.vectors.get_mut(usize::from(n)) else {
            return;
        };
        if vector.message == message {
            return;
        }
        if let Err(error) = vector.mark(self.router.as_ref(), message) {
            self.report(n, &*error);
        }
    }

    fn commit(&mut self, n: u16) {
        let vector = self.vectors.get_mut(usize::from(n));
        if let Some(Err(error)) = vector.map(Vector::commit) {
            self.report(n, &*error);
        }
    }

    /// Binds those of `range` that now send a message and never did so far; with none of them the binder is
    /// only told where the hardware shall enter the mode. The route comes first: an event that fires at once
    /// already has its way.
    fn bind_new(&mut self, span: u16, range: std::ops::Range<u16>, enters: bool) {
        let new = |vector: &Vector| !vector.bound && vector.message.is_some();
        let mut events = Vec::new();
        for n in range.clone() {
            match self.vectors.get(usize::from(n)) {
                Some(vector) if new(vector) => events.extend(vector.route.as_ref().map(|r| (n, r.event()))),
                _ => {}
            }
        }
        if events.is_empty() && !enters {
            return;
        }
        match self.binder.bind(span, &events) {
            Ok(()) => {
                self.enabled = true;
                let range = usize::from(range.start)..usize::from(range.end).min(self.vectors.len());
                for vector in self.vectors[range].iter_mut().filter(|vector| new(vector)) {
                    vector.bound = true;
                }
            }
            Err(error) => {
                let first = events.first().map_or(0, |event| event.0);
                self.report(first, &*error);
            }
        }
    }

    fn report(&mut self, n: u16, error: &dyn Error) {
        if !self.failed {
            log::warn!(
                "interrupt vector {n} does not work: {}; further failures are not reported",
                Chain(error)
            );
        }
        self.failed = true;
    }
}

impl Vector {
    /// Marks the route, which is made if there is none.
    fn mark(&mut self, router: &dyn MsiRouter, message: Option<MsiMessage>) -> Result<(), RouteError> {
        let route = match (&self.route, message) {
            (Some(route), _) => route,
            (None, None) => return Ok(()),
            (None, Some(_)) => self.route.insert(router.route()?),
        };
        route.set(message);
        self.message = message;
        self.is_marked = true;
        Ok(())
    }

    /// A vector whose message is refused is silent, and the guest's next write of it tries again.
    fn commit(&mut self) -> Result<(), RouteError> {
        let Some(route) = self.route.as_ref().filter(|_| mem::take(&mut self.is_marked)) else {
            return Ok(());
        };
        route.commit().inspect_err(|_| {
            self.message = None;
            route.set(None);
            let _still_refused = route.commit();
        })
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        self.release();
    }
}

//! RAM that is made ready for DMA while the guest starts: no device is bus master before.
//!
//! The guest starts when little is left: Linux makes a device bus master with interrupts off, under a lock that all of its
//! accesses to configuration space take (`pci_config_lock`, arch/x86/pci/direct.c), and looks after CPUs that stand still for
//! 20 seconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use strait_devices::dma::BusMaster;
use strait_devices::{Chain, lock};

use crate::events::{Event, Events};
use crate::machine::error::RunError;
use crate::signals::Ended;

/// The guest starts when the rest is expected to take so long.
const NEAR: Duration = Duration::from_secs(5);

/// How long a vCPU waits at a time that makes a device bus master: between two times it can be stopped.
const TURN: Duration = Duration::from_millis(10);

/// The work, and who waits for it.
pub(super) struct Reach {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread of the work shares with those who wait for it.
pub(super) struct State {
    events: Arc<Events>,
    outcome: Mutex<Outcome>,
    /// It has, or it is to take [`NEAR`] or less.
    changed: Condvar,
    /// Nobody wants it any more.
    is_given_up: AtomicBool,
}

#[derive(Clone, PartialEq)]
enum Outcome {
    /// The rest takes longer than [`NEAR`]: the guest does not start yet.
    Far,
    /// The guest may start.
    Near,
    /// All RAM is mapped: devices may be bus masters.
    Ready,
    /// Devices reach nothing: the machine ends, for this reason.
    Failed(String),
}

impl Reach {
    /// Begins `work` beside the guest. Where it fails the machine is told to end.
    ///
    /// It is to ask [`State::go_on`] between its parts.
    pub(super) fn begin(
        events: Arc<Events>,
        work: impl FnOnce(&Arc<State>) -> Result<(), RunError> + Send + 'static,
    ) -> Self {
        let state = Arc::new(State {
            events,
            outcome: Mutex::new(Outcome::Far),
            changed: Condvar::new(),
            is_given_up: AtomicBool::new(false),
        });
        let work = Arc::new(Mutex::new(Some(work)));
        let run = {
            let state = state.clone();
            move || {
                if let Some(work) = lock(&work).take() {
                    state.settle(work(&state));
                }
            }
        };
        let thread = Builder::new().name("reach".to_owned()).spawn(run.clone());
        let thread = thread.inspect_err(|_| run()).ok();
        Self { state, thread }
    }

    /// What lets a device become bus master once it is done.
    pub(super) fn gate(&self) -> Arc<dyn BusMaster> {
        Arc::new(Gate(self.state.clone()))
    }

    /// Waits until little is left.
    ///
    /// # Errors
    /// When it has failed, or a signal ends the start.
    pub(super) fn wait_until_near(&self, go_on: &dyn Fn() -> Result<(), Ended>) -> Result<(), RunError> {
        let mut outcome = lock(&self.state.outcome);
        while *outcome == Outcome::Far {
            go_on()?;
            let waited = self.state.changed.wait_timeout(outcome, TURN);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match &*outcome {
            Outcome::Failed(why) => Err(why.clone().into()),
            _ => Ok(()),
        }
    }

    /// Waits until it is done, has failed, or is given up.
    pub(super) fn wait(&self) {
        let state = &self.state;
        let pending = |outcome: &mut Outcome| outcome.is_pending() && state.go_on().is_ok();
        drop(state.changed.wait_while(lock(&state.outcome), pending));
    }

    /// Goes on unless it is given up.
    pub(super) fn go_on(&self) -> Result<(), Ended> {
        self.state.go_on()
    }

    /// Nobody wants it any more, and nobody waits for it.
    pub(super) fn give_up(&self) {
        // With the lock, so that nobody begins to wait between the two.
        let _outcome = lock(&self.state.outcome);
        self.state.is_given_up.store(true, Ordering::Relaxed);
        self.state.changed.notify_all();
    }
}

impl Outcome {
    fn is_pending(&self) -> bool {
        matches!(self, Self::Far | Self::Near)
    }
}

/// The end of the machine does not wait for what is left of it.
impl Drop for Reach {
    fn drop(&mut self) {
        self.give_up();
        if let Some(thread) = self.thread.take() {
            // A panic of its has been told.
            let _told = thread.join();
        }
    }
}

impl State {
    /// Goes on unless the machine has ended.
    pub(super) fn go_on(&self) -> Result<(), Ended> {
        match self.is_given_up.load(Ordering::Relaxed) {
            true => Err(Ended),
            false => Ok(()),
        }
    }

    /// What is left of it will take so long.
    pub(super) fn expect(&self, left: Duration) {
        let mut outcome = lock(&self.outcome);
        if *outcome == Outcome::Far && left <= NEAR {
            *outcome = Outcome::Near;
            self.changed.notify_all();
        }
    }

    fn settle(&self, done: Result<(), RunError>) {
        let outcome = match done {
            Ok(()) => Outcome::Ready,
            Err(error) => Outcome::Failed(Chain(&*error).to_string()),
        };
        *lock(&self.outcome) = outcome;
        self.changed.notify_all();
        self.tell();
    }

    /// Ends the machine where it failed, unless it is at its end already.
    fn tell(&self) {
        let failed = lock(&self.outcome).clone();
        if let (Outcome::Failed(why), Ok(())) = (failed, self.go_on()) {
            self.events.report(Event::Failed(why));
        }
    }
}

/// Keeps a device from DMA until RAM is there.
struct Gate(Arc<State>);

impl BusMaster for Gate {
    fn set_bus_master(&self, on: bool) -> bool {
        if !on {
            return true;
        }
        let is_ready = *lock(&self.0.outcome) == Outcome::Ready;
        if !is_ready {
            // Once more where it had failed before the guest was reset, which forgot it.
            self.0.tell();
        }
        is_ready
    }

    fn wait_a_turn(&self) {
        let outcome = lock(&self.0.outcome);
        if *outcome != Outcome::Ready {
            drop(self.0.changed.wait_timeout(outcome, TURN));
        }
    }

    fn leave(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn events() -> Arc<Events> {
        Arc::new(Events::new().expect("an eventfd"))
    }

    #[test]
    fn a_device_becomes_bus_master_when_the_work_is_done() {
        let (ready, is_ready) = channel();
        let events = events();
        let reach = Reach::begin(events.clone(), move |_| {
            is_ready.recv().map_err(|_| RunError::from("nobody says so"))
        });
        let gate = reach.gate();
        assert!(!gate.set_bus_master(true));
        gate.wait_a_turn();
        assert!(
            gate.set_bus_master(false),
            "no device waits to be kept from memory"
        );
        ready.send(()).expect("it hears");
        reach.wait();
        assert!(gate.set_bus_master(true));
        assert_eq!(events.take(), None);
    }

    #[test]
    fn work_that_fails_ends_the_machine_and_no_device_becomes_bus_master() {
        let events = events();
        let reach = Reach::begin(events.clone(), |_| Err("no memory".into()));
        reach.wait();
        let refused = reach.wait_until_near(&|| Ok(())).expect_err("it failed");
        assert_eq!(refused.to_string(), "no memory");
        let failed = Some(Event::Failed("no memory".to_owned()));
        while events.take() != failed {}
        assert!(!reach.gate().set_bus_master(true));
        assert_eq!(events.take(), failed, "also behind a reset, which forgets events");
    }

    #[test]
    fn the_guest_starts_when_little_is_left() {
        let (expected, expects) = channel();
        let reach = Reach::begin(events(), move |state| {
            for left in expects {
                state.expect(left);
            }
            Ok(())
        });
        expected.send(NEAR * 2).expect("it hears");
        let ended = reach.wait_until_near(&|| Err(Ended));
        assert!(ended.expect_err("a signal ends it").is::<Ended>());
        expected.send(NEAR).expect("it hears");
        reach.wait_until_near(&|| Ok(())).expect("little is left");
        assert!(!reach.gate().set_bus_master(true), "but something is");
        reach.give_up();
        reach.wait();
        drop(expected);
    }

    #[test]
    fn the_end_of_a_machine_is_no_failure_and_does_not_wait() {
        let events = events();
        let reach = Reach::begin(events.clone(), |state| {
            loop {
                state.go_on()?;
            }
        });
        drop(reach);
        assert_eq!(events.take(), None);
    }
}

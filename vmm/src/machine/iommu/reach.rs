//! RAM that is made ready for DMA while the guest starts: no device is bus master before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use strait_devices::dma::BusMaster;
use strait_devices::{Chain, lock};

use crate::events::{Event, Events};
use crate::machine::error::RunError;
use crate::signals::Ended;

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
    changed: Condvar,
    /// Nobody wants it any more.
    is_given_up: AtomicBool,
}

#[derive(Clone)]
enum Outcome {
    Pending,
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
            outcome: Mutex::new(Outcome::Pending),
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

    /// Waits until it is done or has failed.
    pub(super) fn wait(&self) {
        let pending = |outcome: &mut Outcome| matches!(outcome, Outcome::Pending);
        let outcome = lock(&self.state.outcome);
        drop(self.state.changed.wait_while(outcome, pending));
    }
}

/// The end of the machine does not wait for what is left of it.
impl Drop for Reach {
    fn drop(&mut self) {
        self.state.is_given_up.store(true, Ordering::Relaxed);
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
        let pending = |outcome: &mut Outcome| matches!(outcome, Outcome::Pending);
        let state = &self.0;
        let waited = state
            .changed
            .wait_timeout_while(lock(&state.outcome), TURN, pending);
        let is_ready = waited.is_ok_and(|(outcome, _)| matches!(*outcome, Outcome::Ready));
        if !is_ready {
            // Once more where it had failed before the guest was reset, which forgot it.
            state.tell();
        }
        is_ready
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
        assert!(!gate.set_bus_master(true), "it waits, but not for long");
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
        let failed = Some(Event::Failed("no memory".to_owned()));
        while events.take() != failed {}
        assert!(!reach.gate().set_bus_master(true));
        assert_eq!(events.take(), failed, "also behind a reset, which forgets events");
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

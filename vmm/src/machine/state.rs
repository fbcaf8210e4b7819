//! What can happen to a machine, and what follows.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Something that ends or restarts the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest asked for a reset.
    Reset,
    /// The guest powered off.
    PowerOff,
    /// The guest reported a panic of its kernel.
    GuestPanic,
    /// A vCPU faulted while it handled a double fault.
    TripleFault,
    /// The host cannot go on; why.
    Failed(String),
    /// The user or a signal asks to end.
    Quit,
}

/// What the machine does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Start the guest from the beginning.
    Restart,
    /// End the process.
    End(Outcome),
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off, or the user ended it.
    PoweredOff,
    /// The guest reset and was not to be started again.
    Reset,
    /// The guest's kernel panicked.
    Panicked,
    /// The host could not go on.
    Failed(String),
}

impl Outcome {
    /// The exit code of `strait run`; 32 and 34 are crosvm's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::PoweredOff => 0,
            Outcome::Failed(_) => 1,
            Outcome::Reset => 32,
            Outcome::Panicked => 34,
        }
    }
}

/// What follows from an event.
pub(super) fn next(event: Event, no_reboot: bool) -> Next {
    match event {
        Event::Reset if no_reboot => Next::End(Outcome::Reset),
        Event::Reset => Next::Restart,
        Event::PowerOff | Event::Quit => Next::End(Outcome::PoweredOff),
        Event::GuestPanic | Event::TripleFault => Next::End(Outcome::Panicked),
        Event::Failed(why) => Next::End(Outcome::Failed(why)),
    }
}

/// Where vCPUs leave events for the event loop. Only the first counts until it is taken: what several
/// vCPUs report while the guest goes down is one event, also when it is taken before all of them have stopped.
/// Devices that leave are told of beside it.
pub struct Events {
    reported: Mutex<Reported>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Reported {
    first: Option<Event>,
    /// Ports whose devices the guest let go, each once until it is taken.
    ejected: BTreeSet<u8>,
}

impl Events {
    /// No event yet.
    ///
    /// # Errors
    /// When the host gives no more descriptors.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            reported: Mutex::default(),
            wake,
        })
    }

    /// Leaves an event and wakes the event loop.
    pub fn report(&self, event: Event) {
        self.lock().first.get_or_insert(event);
        self.wake();
    }

    /// Leaves word that the guest let go of the device behind root port `port`, and wakes the event loop.
    pub fn eject(&self, port: u8) {
        self.lock().ejected.insert(port);
        self.wake();
    }

    /// Wakes the event loop without an event.
    pub fn wake(&self) {
        // A full counter is a wake-up as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes the event.
    pub fn take(&self) -> Option<Event> {
        self.lock().first.take()
    }

    /// Takes a port whose device the guest let go of.
    pub fn take_ejected(&self) -> Option<u8> {
        self.lock().ejected.pop_first()
    }

    /// Drops all that was left. Called when no vCPU runs any more: what they still reported on their way out
    /// belongs to a guest that is gone.
    pub fn forget(&self) {
        *self.lock() = Reported::default();
        self.clear();
    }

    /// Sleeps again; to be called before looking at what was left.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_restarts_unless_it_must_not() {
        assert_eq!(next(Event::Reset, false), Next::Restart);
        assert_eq!(next(Event::Reset, true), Next::End(Outcome::Reset));
        assert_eq!(Outcome::Reset.exit_code(), 32);
    }

    #[test]
    fn a_panic_has_its_own_code() {
        for event in [Event::GuestPanic, Event::TripleFault] {
            assert_eq!(next(event, false), Next::End(Outcome::Panicked));
        }
        assert_eq!(Outcome::Panicked.exit_code(), 34);
    }

    #[test]
    fn only_the_first_event_counts() {
        let events = Events::new().expect("an eventfd");
        events.report(Event::GuestPanic);
        events.report(Event::Reset);
        assert_eq!(events.take(), Some(Event::GuestPanic));
        assert_eq!(events.take(), None);
    }

    #[test]
    fn what_is_left_of_a_guest_does_not_meet_the_next() {
        let events = Events::new().expect("an eventfd");
        events.report(Event::Reset);
        assert_eq!(events.take(), Some(Event::Reset));
        events.report(Event::TripleFault);
        events.eject(1);
        events.forget();
        assert_eq!((events.take(), events.take_ejected()), (None, None));
    }

    #[test]
    fn devices_that_leave_are_told_of_beside_the_first_event() {
        let events = Events::new().expect("an eventfd");
        events.report(Event::Reset);
        [2, 1, 2].into_iter().for_each(|port| events.eject(port));
        let ejected: Vec<_> = std::iter::from_fn(|| events.take_ejected()).collect();
        assert_eq!(ejected, [1, 2]);
        assert_eq!(events.take(), Some(Event::Reset));
    }
}

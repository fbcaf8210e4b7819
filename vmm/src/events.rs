//! What vCPUs, and the porter of devices, tell the event loop.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use strait_devices::lock;

use crate::kvm::vcpu::DebugExit;

/// Something that happened to the guest, as one of its vCPUs saw it, or beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest asked for a reset.
    Reset,
    /// The guest powered off.
    PowerOff,
    /// The guest reported a panic of its kernel.
    GuestPanic,
    /// A vCPU faulted while it handled a double fault.
    TripleFault,
    /// The host cannot run the vCPU on; why.
    Failed(String),
    /// The guest let go of the device behind the root port with this number.
    Ejected(u8),
    /// A vCPU came to where a debugger wants it.
    Debug(DebugExit),
    /// A device that was on its way has come, or has gone. It is the porter who says so.
    Carried,
}

/// Where vCPUs leave events for the event loop. Of those that happen to the whole guest only the first counts until
/// it is taken: what several vCPUs report while the guest goes down is one event, also when it is taken before all
/// of them have stopped. Devices that leave are told of beside it.
pub struct Events {
    reported: Mutex<Reported>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Reported {
    first: Option<Event>,
    /// Ports whose devices the guest let go, each once until it is taken.
    ejected: BTreeSet<u8>,
    /// vCPUs that came to where a debugger wants them, where nothing happens to the guest.
    debug: VecDeque<DebugExit>,
    /// The porter has something.
    carried: bool,
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
        let mut reported = self.lock();
        match event {
            Event::Ejected(port) => _ = reported.ejected.insert(port),
            Event::Carried => reported.carried = true,
            Event::Debug(exit) => reported.debug.push_back(exit),
            event => _ = reported.first.get_or_insert(event),
        }
        drop(reported);
        self.wake();
    }

    /// Wakes the event loop without an event.
    pub fn wake(&self) {
        // A full counter is a wake-up as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes an event: devices that leave before what ends the guest, which may be a reset that they outlive.
    pub fn take(&self) -> Option<Event> {
        let mut reported = self.lock();
        let ejected = reported.ejected.pop_first().map(Event::Ejected);
        let first = ejected.or_else(|| reported.first.take());
        let first = first.or_else(|| reported.debug.pop_front().map(Event::Debug));
        first.or_else(|| std::mem::take(&mut reported.carried).then_some(Event::Carried))
    }

    /// Takes what else a debugger wants to hear of, when all vCPUs stand still: at most what each met before it did.
    pub fn take_debug(&self) -> Vec<DebugExit> {
        self.lock().debug.drain(..).collect()
    }

    /// Sleeps again; to be called before looking at what was left.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        lock(&self.reported)
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
    fn only_the_first_event_counts() {
        let events = Events::new().expect("an eventfd");
        events.report(Event::GuestPanic);
        events.report(Event::Reset);
        assert_eq!(events.take(), Some(Event::GuestPanic));
        assert_eq!(events.take(), None);
    }

    #[test]
    fn what_happens_to_the_guest_comes_before_what_a_debugger_wants() {
        let exit = DebugExit {
            vcpu: 1,
            pc: 0x1000,
            exception: 3,
            dr6: 0,
        };
        let events = Events::new().expect("an eventfd");
        events.report(Event::Debug(exit));
        events.report(Event::Debug(DebugExit { vcpu: 0, ..exit }));
        events.report(Event::Reset);
        assert_eq!(events.take(), Some(Event::Reset));
        assert_eq!(events.take(), Some(Event::Debug(exit)), "the first of them");
        assert_eq!(events.take_debug(), [DebugExit { vcpu: 0, ..exit }], "the other");
        assert_eq!(events.take(), None);
    }

    #[test]
    fn devices_that_leave_are_told_of_beside_the_first_event() {
        let events = Events::new().expect("an eventfd");
        events.report(Event::Reset);
        [2, 1, 2]
            .into_iter()
            .for_each(|port| events.report(Event::Ejected(port)));
        let taken: Vec<_> = std::iter::from_fn(|| events.take()).collect();
        assert_eq!(taken, [Event::Ejected(1), Event::Ejected(2), Event::Reset]);
    }
}

//! Who carries devices to a running guest and back to the host, one after the other: opening one, locking RAM for it and
//! resetting it take from milliseconds to minutes, and neither the guest nor its clients wait for that.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use strait_devices::lock;

use super::error::RunError;
use super::passthrough::Opened;
use super::seat::Seat;
use crate::control::Ticket;
use crate::events::{Event, Events};

/// Something that takes long, and ends with what is to be done about it on the first thread.
pub(super) type Job = Box<dyn FnOnce() -> Carried + Send>;

/// What has become of a job.
pub(super) enum Carried {
    /// A device is open for the guest, or cannot be had.
    Here(Ticket, Seat, Result<Vec<Opened>, RunError>),
    /// Devices with these ids are back with the host.
    Gone(Vec<String>),
}

/// Jobs in the order in which they were given, each on a thread of its own while it lasts.
pub(super) struct Porter {
    events: Arc<Events>,
    waiting: VecDeque<Job>,
    /// Where the job that is begun tells of its end.
    begun: Option<Receiver<Carried>>,
}

impl Porter {
    /// Without a job. The event loop hears of each that is done by `events`.
    pub(super) fn new(events: Arc<Events>) -> Self {
        Self {
            events,
            waiting: VecDeque::new(),
            begun: None,
        }
    }

    /// Takes on a job.
    pub(super) fn carry(&mut self, job: Job) {
        self.waiting.push_back(job);
        self.begin_next();
    }

    /// What a job has come to, if one is done.
    pub(super) fn take_done(&mut self) -> Option<Carried> {
        let carried = match self.begun.as_ref()?.try_recv() {
            Err(TryRecvError::Empty) => return None,
            // A job that panicked has said so, and what it had is closed.
            carried => carried.ok(),
        };
        self.begun = None;
        self.begin_next();
        carried
    }

    fn begin_next(&mut self) {
        if self.begun.is_some() {
            return;
        }
        let Some(job) = self.waiting.pop_front() else {
            return;
        };
        let (sender, done) = channel();
        self.begun = Some(done);
        let (job, events) = (Arc::new(Mutex::new(Some(job))), self.events.clone());
        let work = {
            let job = job.clone();
            move || {
                let taken = lock(&job).take();
                if let Some(job) = taken {
                    // Nobody hears of it when the machine is gone.
                    let _ = sender.send(job());
                }
                events.report(Event::Carried);
            }
        };
        let begun = thread::Builder::new()
            .name("porter".to_owned())
            .spawn(work.clone());
        if let Err(error) = begun {
            log::warn!("The host gives no more threads ({error}): the guest's clients wait for a device");
            work();
        }
    }
}

/// A device that is on its way gets to its end, from where it goes back: nothing of it is left on the host.
impl Drop for Porter {
    fn drop(&mut self) {
        self.waiting.clear();
        if let Some(done) = self.begun.take() {
            let _ = done.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn next(porter: &mut Porter) -> Vec<String> {
        for _ in 0..1000 {
            match porter.take_done() {
                Some(Carried::Gone(names)) => return names,
                Some(Carried::Here(..)) => panic!("nothing was opened"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("a job of nothing takes more than 10 s");
    }

    #[test]
    fn jobs_are_done_in_their_order_one_at_a_time() {
        let events = Arc::new(Events::new().expect("an eventfd"));
        let mut porter = Porter::new(events.clone());
        let at_work = Arc::new(Mutex::new(()));
        for name in ["first", "second", "third"] {
            let at_work = at_work.clone();
            porter.carry(Box::new(move || {
                let _alone = at_work.try_lock().expect("no other job is at work");
                thread::sleep(Duration::from_millis(5));
                Carried::Gone(vec![name.to_owned()])
            }));
        }
        for name in ["first", "second", "third"] {
            assert_eq!(next(&mut porter), [name]);
        }
        assert_eq!(events.take(), Some(Event::Carried));
    }

    #[test]
    fn a_job_that_panics_keeps_neither_the_next_one_nor_the_end() {
        let mut porter = Porter::new(Arc::new(Events::new().expect("an eventfd")));
        porter.carry(Box::new(|| panic!("a fault of the program")));
        porter.carry(Box::new(|| Carried::Gone(vec!["next".to_owned()])));
        assert_eq!(next(&mut porter), ["next"]);
        porter.carry(Box::new(|| panic!("a fault of the program")));
        drop(porter);
    }

    #[test]
    fn the_end_of_a_machine_waits_for_the_job_that_is_begun_and_forgets_the_others() {
        let mut porter = Porter::new(Arc::new(Events::new().expect("an eventfd")));
        let (begun, done) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        for _ in 0..2 {
            let (begun, done) = (begun.clone(), done.clone());
            porter.carry(Box::new(move || {
                *lock(&begun) += 1;
                thread::sleep(Duration::from_millis(20));
                *lock(&done) += 1;
                Carried::Gone(Vec::new())
            }));
        }
        drop(porter);
        assert_eq!((*lock(&begun), *lock(&done)), (1, 1));
    }
}

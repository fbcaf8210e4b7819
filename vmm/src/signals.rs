//! The signals that end a machine, and the one that asks what it does.
//!
//! They are taken over before the first device leaves the host: from then on the process does not die of
//! them with a device in hand, but ends when it is asked to, by the way that gives everything back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// How many questions one answer is for at most.
const CHUNK: usize = 256;

/// The start was given up because a signal asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Ended by a signal while the guest was being started")]
pub struct Ended;

/// The wishes that signals have brought since they were taken over: an end, or an answer.
pub struct Signals {
    /// Readable from the first SIGTERM, SIGINT or SIGHUP on; read only where one does not end the machine at once, so that
    /// none is forgotten.
    end: UnixStream,
    /// Readable while a SIGUSR1 waits for its answer.
    questions: UnixStream,
    /// True when the machine has ended: then the signals that ask for it have their default effect again.
    is_over: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP, which end the machine, and SIGUSR1, which asks what it does.
    ///
    /// # Errors
    /// When a signal cannot be taken over.
    pub fn take_over() -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        // A socket, for signal_hook writes to it with MSG_DONTWAIT: a handler never waits, however often it runs.
        let (end, raise) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            flag::register_conditional_default(signal, is_over.clone())?;
            pipe::register(signal, raise.try_clone()?)?;
        }
        let (questions, ask) = UnixStream::pair()?;
        pipe::register(SIGUSR1, ask)?;
        Ok(Self {
            end,
            questions,
            is_over,
        })
    }

    /// Asked between the steps of a start: goes on unless a signal has asked for the end.
    ///
    /// # Errors
    /// [`Ended`] from the first such signal on.
    pub fn go_on(&self) -> Result<(), Ended> {
        let mut fds = [PollFd::new(&self.end, PollFlags::IN)];
        // An interrupted poll is asked again with the next step.
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(1..) => Err(Ended),
            _ => Ok(()),
        }
    }

    /// The machine has ended and all is given back: from now on SIGTERM, SIGINT and SIGHUP end the process at once.
    /// True if more than one of them came before, so that there is nothing more to wait for.
    pub fn hand_back(&self) -> bool {
        // Before the look at what came: a signal between the two ends the process by itself.
        self.is_over.store(true, Ordering::SeqCst);
        let mut came = [0; 2];
        let read = rustix::net::recv(&self.end, &mut came, RecvFlags::DONTWAIT);
        read.is_ok_and(|(len, _)| len == came.len())
    }

    /// Readable when the machine is to end.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Takes one signal that asked for the end: the guest is given some time, and a second one ends it.
    pub fn take_end(&self) {
        let _ = rustix::net::recv(&self.end, &mut [0; 1], RecvFlags::DONTWAIT);
    }

    /// Readable when somebody asks what the machine does.
    pub fn questions(&self) -> BorrowedFd<'_> {
        self.questions.as_fd()
    }

    /// Takes the questions that wait; one answer is enough for all.
    pub fn take_questions(&self) {
        // Something is there; that it cannot be taken means one answer more.
        let _ = rustix::io::read(&self.questions, &mut [0; CHUNK]);
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn a_signal_ends_every_later_step_and_a_question_none() {
        let signals = Signals::take_over().expect("taken over");
        assert_eq!(signals.go_on(), Ok(()));
        raise(SIGUSR1).expect("raised");
        assert_eq!(signals.go_on(), Ok(()));
        raise(SIGTERM).expect("raised");
        assert_eq!([signals.go_on(), signals.go_on()], [Err(Ended); 2]);
        raise(SIGHUP).expect("raised");
        assert!(signals.hand_back(), "two came");
        assert!(!signals.hand_back(), "and no more");
    }
}

//! Standard output with the guest's console, and standard error with our own messages, whatever becomes of their
//! readers.
//!
//! Nothing that runs the guest waits for a reader: bytes that a reader has no room for wait in memory, up to a limit,
//! and the event loop writes them out as soon as there is room.

mod stream;
mod target;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

pub use stream::{Output, Writer};

pub(crate) use target::Target;

use stream::News;

/// The time that a reader may take for the next bytes when all else is done.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pause between two looks at whether the reader took any.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Standard output and standard error.
pub struct Outputs {
    /// The guest's serial console, on standard output.
    pub console: Arc<Output>,
    /// Our own messages, on standard error.
    pub messages: Arc<Output>,
    /// Readable when an output has something to do.
    wake: Arc<OwnedFd>,
}

impl Outputs {
    /// Those of this process.
    ///
    /// # Errors
    /// When the host gives no more descriptors.
    pub fn standard() -> io::Result<Self> {
        Self::new(io::stdout(), io::stderr())
    }

    fn new(console: impl AsFd, messages: impl AsFd) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let output =
            |shared| Ok::<_, io::Error>(Arc::new(Output::new(Target::unwaiting(shared)?, wake.clone())));
        Ok(Self {
            console: output(console.as_fd())?,
            messages: output(messages.as_fd())?,
            wake,
        })
    }

    /// The files to wait for. When any of them is ready, [`serve`](Self::serve) is to be called.
    pub fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(self.full().map(|output| PollFd::new(&**output, PollFlags::OUT)));
        fds
    }

    /// Writes out what waits and has room by now, and tells what is lost. Says how many bytes were written.
    pub fn serve(&self) -> usize {
        // Before the look at what waits, so that no wake-up is missed.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        let written = self.both().map(|output| output.flush()).into_iter().sum();
        self.tell();
        written
    }

    /// Drops what waits: nobody is to be waited for.
    pub fn give_up(&self) {
        self.both().iter().for_each(|output| output.give_up());
    }

    /// The last words: gives what waits a chance as long as its readers take something, and says what
    /// they did not take.
    pub fn finish(&self) {
        self.finish_within(PATIENCE);
    }

    fn finish_within(&self, patience: Duration) {
        let mut progress = Instant::now();
        while self.full().count() > 0 && progress.elapsed() < patience {
            // An interrupted wait is a short one.
            let _ = poll(&mut self.poll_fds(), Some(&LOOK));
            if self.serve() > 0 {
                progress = Instant::now();
            }
        }
        self.console.give_up();
        self.tell();
    }

    fn tell(&self) {
        match self.console.news() {
            None => {}
            Some(News::Lost(bytes)) => {
                log::warn!("Standard output was not read: {bytes} bytes of the guest's console are lost");
            }
            Some(News::Refused(error)) => {
                log::warn!("Standard output is closed ({error}): the guest's console goes nowhere");
            }
        }
        // That nobody reads the messages is no message.
        if let Some(News::Lost(bytes)) = self.messages.news() {
            log::warn!("Standard error was not read: {bytes} bytes of messages are lost");
        }
    }

    fn full(&self) -> impl Iterator<Item = &Arc<Output>> {
        self.both().into_iter().filter(|output| output.waiting() > 0)
    }

    fn both(&self) -> [&Arc<Output>; 2] {
        [&self.console, &self.messages]
    }
}

#[cfg(test)]
mod tests;

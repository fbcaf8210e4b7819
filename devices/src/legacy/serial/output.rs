//! Where the guest's output goes, whatever happens to the other side.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

use log::warn;

/// How much output waits for a slow reader at most.
const BACKLOG_BYTES: usize = 64 * 1024;

/// A writer that never fails and never waits: what the target does not take now is kept up to a limit, the
/// newest beyond it is dropped; a target that failed for good gets nothing more.
pub(super) struct Output {
    target: Option<Box<dyn Write + Send>>,
    backlog: VecDeque<u8>,
    dropped: bool,
}

impl Output {
    pub(super) fn new(target: Box<dyn Write + Send>) -> Self {
        Self {
            target: Some(target),
            backlog: VecDeque::new(),
            dropped: false,
        }
    }

    /// Writes out what waits; true when nothing is left.
    pub(super) fn drain(&mut self) -> bool {
        while !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            let Some(target) = &mut self.target else { break };
            match target.write(front) {
                Ok(0) => return self.give_up(&io::Error::from(ErrorKind::WriteZero)),
                Ok(written) => drop(self.backlog.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => return self.give_up(&error),
            }
        }
        self.flush_target()
    }

    fn flush_target(&mut self) -> bool {
        match self.target.as_mut().map_or(Ok(()), Write::flush) {
            Err(error) if !is_transient(error.kind()) => self.give_up(&error),
            result => result.is_ok(),
        }
    }

    fn give_up(&mut self, error: &io::Error) -> bool {
        warn!("Serial output is closed and goes nowhere from now on: {error}");
        self.target = None;
        self.backlog = VecDeque::new();
        true
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.target.is_some() {
            let room = BACKLOG_BYTES - self.backlog.len();
            if room < data.len() && !self.dropped {
                warn!("Serial output is not read: {BACKLOG_BYTES} bytes wait, more is dropped");
                self.dropped = true;
            }
            self.backlog.extend(&data[..data.len().min(room)]);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain();
        Ok(())
    }
}

fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

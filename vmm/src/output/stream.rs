//! One output: its target and what waits for it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use strait_devices::lock;

use super::target::Target;

/// The most that is kept for a slow reader: a whole boot of a kernel that says much.
const BACKLOG_BYTES: usize = 1 << 20;

/// An output that never fails and never makes its writer wait: what its reader has no room for is kept up to a
/// limit and then dropped, the newest first.
pub struct Output {
    target: Target,
    state: Mutex<State>,
    /// An eventfd on which the caller of [`flush`](Self::flush) sleeps.
    wake: Arc<OwnedFd>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<u8>,
    dropped_bytes: u64,
    /// The error with which the last bytes were refused.
    refused: Option<Errno>,
    /// A refusal was told; the next is not.
    is_refusal_told: bool,
}

/// A change of an output that its user should hear of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It takes bytes again, and so many are lost.
    Lost(u64),
    /// It takes nothing, for this reason. Told once.
    Refused(Errno),
}

impl Output {
    /// Writes to `target`; `wake` is an eventfd for whoever flushes what waits.
    pub(super) fn new(target: Target, wake: Arc<OwnedFd>) -> Self {
        Self {
            target,
            state: Mutex::default(),
            wake,
        }
    }

    /// Writes `piece`, which is kept or dropped as a whole unless a part of it is out already. When it leaves
    /// something to do for whoever flushes, he is woken, once.
    pub fn put(&self, piece: &[u8]) {
        let mut state = self.lock();
        let was_quiet = state.is_quiet();
        state.flush(&self.target);
        match state.waiting.is_empty() {
            true => {
                let taken = state.offer(&self.target, piece);
                state.keep(&piece[taken..]);
            }
            false => state.keep(piece),
        }
        if was_quiet && !state.is_quiet() {
            // A full counter is a wake-up as well.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Writes out what waits, as much as there is room for, and says how much that was.
    pub(super) fn flush(&self) -> usize {
        self.lock().flush(&self.target)
    }

    /// The number of bytes that wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Drops what waits, and counts it as lost.
    pub(super) fn give_up(&self) {
        self.lock().drop_waiting();
    }

    /// The news that were not told yet.
    pub(super) fn news(&self) -> Option<News> {
        self.lock().take_news()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }
}

impl State {
    /// Nothing waits and nothing is to be told.
    fn is_quiet(&self) -> bool {
        let is_told = match self.refused {
            Some(_) => self.is_refusal_told,
            None => self.dropped_bytes == 0,
        };
        self.waiting.is_empty() && is_told
    }

    fn take_news(&mut self) -> Option<News> {
        match self.refused {
            Some(errno) if !mem::replace(&mut self.is_refusal_told, true) => Some(News::Refused(errno)),
            None if self.waiting.is_empty() && self.dropped_bytes > 0 => {
                Some(News::Lost(mem::take(&mut self.dropped_bytes)))
            }
            _ => None,
        }
    }

    fn flush(&mut self, target: &Target) -> usize {
        let mut flushed = 0;
        while !self.waiting.is_empty() {
            let front = mem::take(&mut self.waiting);
            let taken = self.offer(target, front.as_slices().0);
            self.waiting = front;
            if taken == 0 {
                break;
            }
            self.waiting.drain(..taken);
            flushed += taken;
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 0 {
            // A megabyte is not kept for the next slow reader.
            self.waiting = VecDeque::new();
        }
        flushed
    }

    /// Gives the target what it takes now; what it refuses for good counts as lost, and is taken too.
    fn offer(&mut self, target: &Target, bytes: &[u8]) -> usize {
        match target.offer(bytes) {
            Ok(0) => 0,
            Ok(taken) => {
                self.refused = None;
                taken
            }
            Err(errno) => {
                self.refused = Some(errno);
                self.dropped_bytes += bytes.len() as u64;
                bytes.len()
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        match self.waiting.len() + piece.len() <= BACKLOG_BYTES {
            true => self.waiting.extend(piece),
            false => self.dropped_bytes += piece.len() as u64,
        }
    }

    fn drop_waiting(&mut self) {
        self.dropped_bytes += mem::take(&mut self.waiting).len() as u64;
    }
}

/// An output as a writer that takes everything.
pub struct Writer(pub Arc<Output>);

impl Write for Writer {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.put(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

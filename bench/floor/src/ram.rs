//! Memory for a guest.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::ValueEnum;

use crate::sys::{self, Mapping};

/// Which pages memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pages {
    /// What the kernel makes of memory that huge pages are advised for.
    Ordinary,
    /// Those of the host's pool of 2 MiB pages.
    #[value(name = "2M")]
    TwoMib,
}

/// Bytes that a CPU takes from the host at a time.
const PIECE: usize = 32 << 20;

/// Anonymous memory of this process.
pub(crate) struct Ram(Mapping);

impl Ram {
    /// So many bytes, of which none is there yet.
    pub(crate) fn new(len: usize, pages: Pages) -> io::Result<Self> {
        let ram = Mapping::new(len, pages == Pages::TwoMib)?;
        if pages == Pages::Ordinary {
            ram.advise_huge_pages();
        }
        Ok(Self(ram))
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.0
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.0.bytes()
    }

    /// Takes all of it from the host, on all CPUs: each takes the next piece, so that none waits for a slower one.
    pub(crate) fn populate(&self) -> io::Result<()> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let (start, len) = (self.0.address(), self.0.len());
        let next = AtomicUsize::new(0);
        let take = || {
            loop {
                let at = next.fetch_add(PIECE, Ordering::Relaxed);
                if at >= len {
                    return Ok(());
                }
                sys::populate(start + at, PIECE.min(len - at))?;
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..cpus).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
        })
    }
}

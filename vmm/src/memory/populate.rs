//! Taking RAM from the host before it is used, on several CPUs: most of it is the kernel's writing of zeros.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, Builder};

use strait_devices::region::HostBacking;

use super::block::RamBlock;
use super::error::MemoryError;

/// Bytes that are taken at a time: a fraction of a second, even in small pages.
const PART: usize = 64 << 20;

/// Threads at most: behind so many the memory itself is what is waited for.
const MOST_THREADS: usize = 16;

/// A part of a block: its first byte there, and its length.
type Part<'a> = (&'a RamBlock, usize, usize);

/// Faults all of `blocks` in, and tells after each part how many bytes that was; an error of `done` ends it when the parts
/// that are begun are there.
///
/// # Errors
/// Those of `done`, and when the host has no memory left.
pub(super) fn all<'a, E: From<MemoryError>>(
    blocks: impl Iterator<Item = &'a RamBlock>,
    mut done: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    let parts: Vec<Part<'_>> = blocks.flat_map(parts).collect();
    let next = AtomicUsize::new(0);
    let (told, hears) = channel();
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let begin = |_| {
            let (told, parts, next) = (told.clone(), &parts, &next);
            let thread = Builder::new().name("ram".to_owned());
            thread.spawn_scoped(scope, move || work(parts, next, &told)).ok()
        };
        let begun = (0..cpus.min(MOST_THREADS).min(parts.len()))
            .map_while(begin)
            .count();
        if begun == 0 {
            work(&parts, &next, &told);
        }
        drop(told);
        let ended = hears.iter().try_for_each(|populated| done(populated?));
        next.store(parts.len(), Ordering::Relaxed);
        ended
    })
}

fn parts(block: &RamBlock) -> impl Iterator<Item = Part<'_>> {
    let len = block.len_bytes() as usize;
    (0..len)
        .step_by(PART)
        .map(move |offset| (block, offset, PART.min(len - offset)))
}

/// One part after the other until there is none that nobody has begun.
fn work(parts: &[Part<'_>], next: &AtomicUsize, told: &Sender<Result<u64, MemoryError>>) {
    while let Some((block, offset, len)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
        let populated = block.populate(*offset, *len).map(|()| *len as u64);
        // Who hears has an error already.
        if told.send(populated).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;
    use crate::memory::source::RamSource;

    #[test]
    fn every_byte_is_told_of_once() {
        let len = (PART + PART / 2) as u64;
        let block = RamBlock::map(GuestAddress(0), len, &RamSource::default(), 0).expect("addresses");
        let mut told = Vec::new();
        let populated = all([&block].into_iter(), |bytes| {
            told.push(bytes);
            Ok::<(), MemoryError>(())
        });
        populated.expect("memory");
        told.sort_unstable();
        assert_eq!(told, [PART as u64 / 2, PART as u64]);
    }

    #[test]
    fn an_error_ends_it() {
        let len = 8 * PART as u64;
        let block = RamBlock::map(GuestAddress(0), len, &RamSource::default(), 0).expect("addresses");
        let mut told = 0;
        let ended = all([&block].into_iter(), |_| {
            told += 1;
            Err(MemoryError::Region(
                vm_memory::mmap::MmapRegionError::InvalidPointer,
            ))
        });
        assert!(matches!(ended, Err(MemoryError::Region(_))));
        assert_eq!(told, 1);
    }
}

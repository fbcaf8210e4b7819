//! Much memory mapped by one call, with a pause before and behind it for who counts outside.

use std::io::stdin;
use std::time::Instant;

use anyhow::{Context, Result};
use strait_devices::dma::Access;

use super::Bench;
use super::pages::{PAGE, Pages, unmap};

/// Where the device sees the memory.
const START: u64 = 0x4000_0000;

/// A page of the kernel's that can hold so many small ones.
const HUGE_PAGES: u64 = 512;

/// Maps `count` pages and unmaps them. Memory that the kernel has in large pages is contiguous in as long
/// pieces; whether it has is said.
pub(super) fn run(bench: &Bench, count: u64) -> Result<()> {
    let pages = Pages::new(count + HUGE_PAGES)?;
    let first = pages.first_aligned(HUGE_PAGES);
    for page in first..first + count {
        pages.touch(page)?;
    }
    println!("runs {}", runs(&pages, first, count)?);
    pause("before")?;
    let start = Instant::now();
    pages.map(&bench.container, START, first, count, Access::all())?;
    println!("mapped {}", start.elapsed().as_millis());
    pause("between")?;
    let start = Instant::now();
    unmap(&bench.container, START, count)?;
    println!("unmapped {}", start.elapsed().as_millis());
    pause("behind")
}

/// Pieces that are contiguous in the guest's memory.
fn runs(pages: &Pages, first: u64, count: u64) -> Result<usize> {
    let places = pages.places(first, count)?;
    Ok(places.chunk_by(|page, next| page + PAGE == *next).count())
}

/// Until a line comes.
fn pause(word: &str) -> Result<()> {
    println!("{word}");
    let read = stdin().read_line(&mut String::new());
    read.map(drop).context("Cannot read the console")
}

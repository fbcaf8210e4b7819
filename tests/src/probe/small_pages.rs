//! A lot of memory in 4 KiB pages at once, as a guest's guest has it: many entries in the tables of every
//! IOMMU above, and one invalidation per run that is contiguous in this machine's memory.

use std::fs;
use std::io::stdin;

use anyhow::{Context, Result, ensure};
use strait_devices::dma::Access;

use super::Bench;
use super::pages::{PAGE, Pages, unmap};

/// Where the device sees the memory, and where the page it reads from.
const BULK: u64 = 0x4000_0000;
const SOURCE_IOVA: u64 = 0x100_0000;

/// Pages that are tried by DMA each round: the first, the last, and some between.
const SAMPLES: u64 = 8;

/// Pages that are neighbours in this machine's memory too: 32 KiB.
const PIECE: u64 = 8;

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Maps `mebibytes`, tries them and unmaps them, `rounds` times. In the last round all of it stays mapped
/// until a line is typed.
pub(super) fn run(bench: &Bench, mebibytes: u64, rounds: u64) -> Result<()> {
    let Bench { edu, container } = bench;
    fs::write(HUGE_PAGES, "never").context("Cannot switch huge pages off")?;
    let count = (mebibytes << 20) / PAGE;
    let pages = Pages::new(count)?;
    let source = Pages::new(1)?;
    for page in scattered(count) {
        pages.touch(page)?;
    }
    let places = pages.places(0, count)?;
    let runs = places.chunk_by(|page, next| page + PAGE == *next).count();
    println!("runs {runs} pages {count}");
    source.fill(0, 0)?;
    source.map(container, SOURCE_IOVA, 0, 1, Access::READ)?;
    for round in 1..=rounds {
        pages.map(container, BULK, 0, count, Access::all())?;
        for sample in 0..SAMPLES {
            let page = (count - 1) * sample / (SAMPLES - 1);
            let word = round << 32 | page;
            source.fill(0, word)?;
            edu.read(SOURCE_IOVA)?;
            edu.write(BULK + page * PAGE)?;
            ensure!(
                pages.holds(page, word)?,
                "Round {round}: DMA to page {page} of {count} does not arrive"
            );
        }
        println!("mapped {round}");
        if round == rounds {
            stdin()
                .read_line(&mut String::new())
                .context("Nothing was typed")?;
        }
        unmap(container, BULK, count)?;
    }
    unmap(container, SOURCE_IOVA, 1)?;
    Ok(())
}

/// All pages, piece by piece, in an order in which no two pieces are neighbours: a kernel that hands out its
/// memory in sequence gives each piece a place of its own.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    let pieces = count / PIECE;
    // An odd number has no factor in common with a power of two.
    let nth = move |index: u64| index * 12_345 % pieces * PIECE;
    (0..pieces).flat_map(move |index| nth(index)..nth(index) + PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_touched_once_and_pieces_are_apart() {
        let count = 1 << 12;
        let order: Vec<u64> = scattered(count).collect();
        let jumps = order.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count() as u64;
        assert_eq!(jumps, count / PIECE - 1);
        let mut sorted = order;
        sorted.sort_unstable();
        assert!((0..count).eq(sorted));
    }
}

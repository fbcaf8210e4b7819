//! DMA to one page that must not notice what happens to the pages beside it.

use std::thread;

use anyhow::{Error, Result, anyhow, ensure};
use strait_devices::dma::Access;

use super::Bench;
use super::pages::{PAGE, Pages, unmap};

/// Where the device sees the page it is busy with. The pages beside it share its tables.
const BUSY: u64 = 0x100_1000;
const BELOW: u64 = BUSY - PAGE;
const ABOVE: u64 = BUSY + PAGE;

/// Contiguous in memory as well, so that nothing but care keeps their mappings apart.
const BUSY_PAGE: u64 = 1;
const SOURCE: u64 = 3;
const SOURCE_IOVA: u64 = 0x200_0000;

/// Maps and unmaps both pages beside the busy one, `rounds` times or more, until the device has made
/// `transfers`.
pub(super) fn run(bench: &Bench, rounds: u64, transfers: u64) -> Result<()> {
    let container = &bench.container;
    let pages = Pages::new(4)?;
    for page in 0..4 {
        pages.fill(page, 0)?;
    }
    pages.map(container, BUSY, BUSY_PAGE, 1, Access::all())?;
    pages.map(container, SOURCE_IOVA, SOURCE, 1, Access::READ)?;
    let changes = thread::scope(|scope| {
        let traffic = scope.spawn(|| keep_busy(bench, &pages, transfers));
        let mut changes = 0;
        while !traffic.is_finished() || changes < rounds {
            change(bench, &pages)?;
            changes += 1;
        }
        traffic.join().map_err(|_| anyhow!("The traffic panicked"))??;
        Ok::<u64, Error>(changes)
    })?;
    println!("transfers {transfers} rounds {changes}");
    unmap(container, BUSY, 1)?;
    unmap(container, SOURCE_IOVA, 1)
}

fn change(bench: &Bench, pages: &Pages) -> Result<()> {
    for (iova, page) in [(BELOW, BUSY_PAGE - 1), (ABOVE, BUSY_PAGE + 1)] {
        pages.map(&bench.container, iova, page, 1, Access::all())?;
    }
    for iova in [BELOW, ABOVE] {
        unmap(&bench.container, iova, 1)?;
    }
    Ok(())
}

/// Lets the device carry one page to another, each time with other contents.
fn keep_busy(bench: &Bench, pages: &Pages, transfers: u64) -> Result<()> {
    for transfer in 1..=transfers {
        pages.fill(SOURCE, transfer)?;
        bench.edu.read(SOURCE_IOVA)?;
        bench.edu.write(BUSY)?;
        ensure!(
            pages.holds(BUSY_PAGE, transfer)?,
            "Transfer {transfer} did not arrive"
        );
    }
    Ok(())
}

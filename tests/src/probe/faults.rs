//! DMA that must not arrive.
//!
//! Each address that the host is to see a fault at is told as `blocked ADDRESS`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use strait_devices::dma::Access;

use super::Bench;
use super::pages::{Pages, unmap};

/// Where the device sees its page of input, and where the pages it writes.
const INPUT: u64 = 0x100_0000;
const OUTPUT: u64 = 0x200_0000;
const READ_ONLY: u64 = 0x300_0000;
const SECRET: u64 = 0x400_0000;

/// A kernel logs three faults, then none until five seconds are over (`dmar_fault`,
/// drivers/iommu/intel/dmar.c).
const LOG_PAUSE: Duration = Duration::from_secs(6);

/// What the pages hold.
const SENT: u64 = 0x5354_5241_4954_0001;
const CANARY: u64 = 0xca4a_1ca4_a1ca_4a1c;

/// The pages in their order.
const SOURCE: u64 = 0;
const TARGET: u64 = 1;
const UNTOUCHABLE: u64 = 2;
const PAGES: u64 = 3;

pub(super) fn run(bench: &Bench) -> Result<()> {
    let Bench { edu, container } = bench;
    let pages = Pages::new(PAGES)?;
    pages.fill(SOURCE, SENT)?;
    pages.fill(TARGET, CANARY)?;
    pages.fill(UNTOUCHABLE, CANARY)?;
    pages.map(container, INPUT, SOURCE, 1, Access::READ)?;
    pages.map(container, OUTPUT, TARGET, 1, Access::all())?;
    edu.read(INPUT)?;
    edu.write(OUTPUT)?;
    ensure!(pages.holds(TARGET, SENT)?, "DMA to a mapped page does not arrive");
    println!("arrived");

    pages.fill(TARGET, CANARY)?;
    unmap(container, OUTPUT, 1)?;
    blocked_write(bench, &pages, OUTPUT, TARGET, "a page that was just unmapped")?;

    // Were all of the machine's memory mapped at its own addresses, this would hit the page.
    let identity = pages.physical(UNTOUCHABLE)?;
    blocked_write(
        bench,
        &pages,
        identity,
        UNTOUCHABLE,
        "a page that was never mapped",
    )?;

    pages.map(container, READ_ONLY, UNTOUCHABLE, 1, Access::READ)?;
    blocked_write(
        bench,
        &pages,
        READ_ONLY,
        UNTOUCHABLE,
        "a page that may only be read",
    )?;
    sleep(LOG_PAUSE);
    pages.map(container, SECRET, UNTOUCHABLE, 1, Access::READ)?;
    unmap(container, SECRET, 1)?;
    edu.read(SECRET)?;
    pages.fill(TARGET, 0)?;
    pages.map(container, OUTPUT, TARGET, 1, Access::all())?;
    edu.write(OUTPUT)?;
    ensure!(
        !pages.holds(TARGET, CANARY)?,
        "The device could read a page that was just unmapped"
    );
    println!("blocked {SECRET:#x}");

    edu.read(INPUT)?;
    edu.write(OUTPUT)?;
    ensure!(pages.holds(TARGET, SENT)?, "After a fault DMA arrives no more");
    Ok(())
}

fn blocked_write(bench: &Bench, pages: &Pages, iova: u64, canary: u64, what: &str) -> Result<()> {
    bench.edu.write(iova)?;
    ensure!(pages.holds(canary, CANARY)?, "DMA at {iova:#x} reached {what}");
    println!("blocked {iova:#x}");
    Ok(())
}

//! Devices of every kind, each with the guest's own driver, and every way to interrupt.

mod by_hand;
mod groups;
mod interrupts;
mod media;
mod rom;
mod storage;
mod sweep;

use anyhow::{Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::guest::GuestConfig;
use crate::lab::{Assigned, NVME};

/// The conventional PCI NIC, behind a bridge.
const RTL8139: &str = "0000:04:00.0";

/// The NIC with two functions in one group, the first with a ROM.
const E1000E: [&str; 2] = ["0000:05:00.0", "0000:05:00.1"];

/// The USB controller with a stick.
const XHCI: &str = "0000:06:00.0";

/// The teaching device: INTx and DMA, no driver, no reset.
const EDU: &str = "0000:00:10.0";

/// The device that counts accesses to its memory and its ports.
const TESTDEV: &str = "0000:00:11.0";

/// The graphics card, and the sound card beside it.
const MEDIA: [&str; 2] = ["0000:00:12.0", "0000:00:13.0"];

/// Memory that other devices can reach.
const SHARED_MEMORY: &str = "0000:00:14.0";

pub(super) fn scenarios() -> Vec<Scenario> {
    let kinds = [
        interrupts::scenarios(),
        storage::scenarios(),
        by_hand::scenarios(),
        media::scenarios(),
        rom::scenarios(),
        groups::scenarios(),
        sweep::scenarios(),
    ];
    kinds.into_iter().flatten().collect()
}

/// Gives devices to vfio-pci.
fn bind<'a>(lab: &'a Context<'_>, devices: &[&str]) -> Result<Vec<Assigned<'a>>> {
    let bind = |device: &&str| Assigned::bind(lab.agent, device);
    devices.iter().map(bind).collect()
}

/// Gives them back, the last first: the functions of a group only go together.
fn restore(devices: Vec<Assigned<'_>>) -> Result<()> {
    devices.into_iter().rev().try_for_each(Assigned::restore)
}

/// A guest with devices, the drivers that it needs and what it does.
fn config(lab: &Context<'_>, devices: &[&str], drivers: &str, steps: &str) -> GuestConfig {
    let config = lab.config(steps);
    GuestConfig {
        initrd: "devices",
        devices: devices.iter().map(|&device| device.to_owned()).collect(),
        cmdline: format!("{} lab.drivers={drivers}", config.cmdline),
        ..config
    }
}

/// The same with more words on the kernel's command line.
fn with_words(config: GuestConfig, words: &str) -> GuestConfig {
    let cmdline = format!("{} {words}", config.cmdline);
    GuestConfig { cmdline, ..config }
}

/// The guest's address and its server in another of the lab machine's networks.
fn in_network(config: GuestConfig, network: &str) -> GuestConfig {
    let cmdline = config.cmdline.replace("10.0.2.15", &format!("{network}.15"));
    with_words(
        GuestConfig { cmdline, ..config },
        &format!("lab.server={network}.2"),
    )
}

/// Runs a guest to its end with devices that are taken for it.
fn run(
    lab: &Context<'_>,
    devices: &[&str],
    config: &GuestConfig,
    work: impl FnOnce(&mut Guest<'_>) -> Result<()>,
) -> Result<Verdict> {
    let taken = bind(lab, devices)?;
    lab.with_guest(config, |guest| {
        work(guest)?;
        guest.expect_power_off()
    })?;
    restore(taken)?;
    Ok(Verdict::Passed)
}

/// The guest says `word value`.
fn says(guest: &mut Guest<'_>, word: &str, value: &str) -> Result<()> {
    let found = guest.expect(word)?;
    ensure!(
        found == value,
        "The guest says `{word} {found}`, expected `{value}`"
    );
    Ok(())
}

/// The guest says a `word` with a number in C's notation.
fn says_number(guest: &mut Guest<'_>, word: &str, value: u64) -> Result<()> {
    let found = guest.expect(word)?;
    let number = match found.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => found.parse(),
    };
    ensure!(
        number == Ok(value),
        "The guest says `{word} {found}`, expected {value:#x}"
    );
    Ok(())
}

fn ping_and_fetch(lab: &Context<'_>, guest: &mut Guest<'_>) -> Result<()> {
    says(guest, "ping", "3")?;
    lab.check_hash(&guest.expect("fetch")?)
}

/// What was written to a drive came back from it.
fn says_the_same(guest: &mut Guest<'_>) -> Result<()> {
    let wrote = guest.expect("wrote")?;
    says(guest, "read", &wrote)
}

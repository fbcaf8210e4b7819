//! What a device behind the guest's own IOMMU reaches by DMA, seen by a VFIO program in the guest.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};

use super::{Lab, Scenario};
use crate::guest::hypervisor::give_by_hand;
use crate::guest::{Guest, GuestConfig};
use crate::lab::devices::EDU;

const SIGUSR1: i32 = 10;

/// How the lab host's kernel tells of DMA that its IOMMU blocked (`dmar_fault`, drivers/iommu/intel/dmar.c).
const FAULTS: [&str; 2] = ["DMAR: DRHD: handling fault status", "DMAR: [DMA"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "viommu-faults",
            "DMA that the guest does not allow does not arrive, and the host logs each fault",
            300,
            faults,
        )
        .warns(&FAULTS),
        Scenario::new(
            "viommu-neighbours",
            "DMA to a page goes on while the guest maps and unmaps those beside it",
            300,
            neighbours,
        ),
        Scenario::new(
            "viommu-small-pages",
            "1 GiB in 4 KiB pages for DMA at once, three times: four times the entries that the host has",
            600,
            small_pages,
        )
        .full()
        .strait_only(),
    ]
}

/// A guest with the teaching device.
fn config(lab: &Lab<'_>) -> Result<GuestConfig> {
    Ok(GuestConfig {
        initrd: "probe",
        ..GuestConfig::with(&[&lab.take(EDU.at())?]).behind_iommu("intel_iommu=on")
    })
}

/// Where DMA of the teaching device did not arrive, as the guest says.
pub(super) fn blocked(lab: &Lab<'_>) -> Result<Vec<String>> {
    let said = lab.run(&config(lab)?, |guest| {
        give_by_hand(guest, "01:00.0")?;
        guest.sh("lab probe faults 0000:01:00.0")
    })?;
    let blocked = said.lines().filter_map(|line| line.strip_prefix("blocked "));
    let blocked: Vec<String> = blocked.map(str::to_owned).collect();
    ensure!(blocked.len() == 4, "The probe says {said}");
    Ok(blocked)
}

fn faults(lab: &Lab<'_>) -> Result<()> {
    let before = log(lab)?.len();
    let blocked = blocked(lab)?;
    let said = log(lab)?;
    let said = said
        .get(before..)
        .context("The host's kernel log became shorter")?;
    let source = format!("Request device [{}]", EDU.at().trim_start_matches("0000:"));
    for address in blocked {
        let fault = format!("fault addr {address} ");
        ensure!(
            said.iter()
                .any(|line| line.contains(&source) && line.contains(&fault)),
            "The host's kernel did not log a fault of the device at {address}"
        );
    }
    Ok(())
}

/// The host's kernel log, line by line.
fn log(lab: &Lab<'_>) -> Result<Vec<String>> {
    Ok(lab.agent.sh("dmesg")?.lines().map(str::to_owned).collect())
}

fn neighbours(lab: &Lab<'_>) -> Result<()> {
    lab.run(&config(lab)?, |guest| {
        give_by_hand(guest, "01:00.0")?;
        guest.sh("lab probe neighbours 0000:01:00.0").map(drop)
    })
}

/// Where strait writes its numbers in the lab host.
const STATS: &str = "/run/viommu-small-pages";

/// Entries that the host's VFIO has for each container (`dma_entry_limit` of vfio_iommu_type1).
const ENTRIES: u64 = 65_535;

fn small_pages(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        memory_mib: 1536,
        more: &["--stats", STATS],
        ..config(lab)?
    };
    lab.run(&config, |guest| {
        give_by_hand(guest, "01:00.0")?;
        let probe = "lab probe small-pages 0000:01:00.0";
        guest.type_script(probe)?;
        let runs = guest.line_with("runs ")?;
        let count = runs.split(' ').nth(1).unwrap_or_default();
        ensure!(
            count.parse::<u64>()? > ENTRIES / 4,
            "The memory is in only {count} pieces, which shows little"
        );
        for round in 1..=3 {
            guest.line_with(&format!("mapped {round}"))?;
        }
        ask_for_numbers(guest)?;
        guest.type_text("\n")?;
        guest.answer(probe).map(drop)
    })?;
    let text = lab.agent.sh(&format!("cat {STATS}"))?;
    lab.log(&text);
    let number = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("01:00.0 {name}: ")));
        let number = line.with_context(|| format!("strait wrote no `{name}`"))?;
        Ok::<u64, Error>(number.parse()?)
    };
    let (most, failed) = (number("most mappings")?, number("failed maps")?);
    ensure!(failed == 0, "{failed} maps were refused by the host");
    ensure!(most < ENTRIES, "{most} entries were in use at once");
    println!("{:22} at most {most} of {ENTRIES} entries for 262144 pages", "");
    ensure!(number("pinned bytes")? == 0, "Memory is left pinned");
    Ok(())
}

/// SIGUSR1 while all of it is mapped; the answer comes on standard error.
fn ask_for_numbers(guest: &mut Guest<'_>) -> Result<()> {
    guest.signal(SIGUSR1)?;
    let bytes = |line: &str| line.strip_prefix("01:00.0 pinned bytes: ")?.parse::<u64>().ok();
    for _ in 0..100 {
        if let Some(pinned) = guest.errors().lines().find_map(bytes) {
            ensure!(pinned >= 1 << 30, "Only {pinned} bytes are pinned for 1 GiB");
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    bail!("strait does not answer SIGUSR1")
}

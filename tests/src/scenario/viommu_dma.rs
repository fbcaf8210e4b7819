//! What a device behind the guest's own IOMMU reaches by DMA, seen by a VFIO program in the guest.

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::lab::{Assigned, EDU};
use crate::vmm::GuestConfig;

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
    ]
}

/// A guest that gives the teaching device to the probe.
fn config(lab: &Context, device: &Assigned<'_>, probe: &str) -> GuestConfig {
    let plain = lab.config_with(device, "probe");
    GuestConfig {
        initrd: "probe",
        cmdline: format!("{} intel_iommu=on lab.probe={probe}", plain.cmdline),
        viommu: true,
        ..plain
    }
}

fn faults(lab: &Context) -> Result<Verdict> {
    let device = Assigned::bind(lab.agent, EDU)?;
    let before = log(lab)?.len();
    let blocked = lab.with_guest(&config(lab, &device, "faults"), |guest| {
        guest.expect("arrived")?;
        let blocked: Vec<String> = (0..4).map(|_| guest.expect("blocked")).collect::<Result<_>>()?;
        guest.expect("probe")?;
        guest.expect_power_off()?;
        Ok(blocked)
    })?;
    device.restore()?;
    let said = log(lab)?;
    let said = said
        .get(before..)
        .context("The host's kernel log became shorter")?;
    let source = format!("Request device [{}]", EDU.trim_start_matches("0000:"));
    for address in &blocked {
        let fault = format!("fault addr {address} ");
        ensure!(
            said.iter()
                .any(|line| line.contains(&source) && line.contains(&fault)),
            "The host's kernel did not log a fault of the device at {address}"
        );
    }
    Ok(Verdict::Passed)
}

/// The host's kernel log, line by line.
fn log(lab: &Context) -> Result<Vec<String>> {
    Ok(lab.agent.sh("dmesg")?.lines().map(str::to_owned).collect())
}

fn neighbours(lab: &Context) -> Result<Verdict> {
    let device = Assigned::bind(lab.agent, EDU)?;
    lab.with_guest(&config(lab, &device, "neighbours"), |guest: &mut Guest<'_>| {
        guest.expect("transfers")?;
        guest.expect_power_off()
    })?;
    device.restore()?;
    Ok(Verdict::Passed)
}

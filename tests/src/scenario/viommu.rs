//! A NIC behind the guest's own IOMMU, in every way the guest's kernel can be told to use it.

use anyhow::{Result, ensure};

use super::nic::{PF_VECTORS, exchange};
use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::vmm::GuestConfig;

const STEPS: &str = "dmar,net,ping3,irqs,fetch,irqs";

/// What Linux says of a unit in which it finds nothing wrong, by the start of the line.
const SAID: [&str; 6] = [
    "DMAR: DRHD base: 0x000000fed90000",
    "DMAR: dmar0: reg_base_addr fed90000 ver 1:0",
    "DMAR: dmar0: Using Queued invalidation",
    "DMAR: IOMMU batching disallowed due to virtualization",
    "DMAR: Intel(R) Virtualization Technology for Directed I/O",
    "DMAR: No RMRR found",
];

/// What it says where interrupts are remapped.
const REMAPPING: [&str; 2] = [
    "DMAR-IR: IOAPIC id 0 under DRHD base",
    "DMAR-IR: Enabled IRQ remapping in x2apic mode",
];

/// Parts of what it says when something is wrong.
const COMPLAINTS: [&str; 8] = [
    "malfunctioning",
    "QI HEAD",
    "Request device",
    "fault reason",
    "no mapping iommu",
    "Failed to set source-id",
    "BIOS bug",
    "[INTR-REMAP]",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let with = |name, about, cmdline: &'static str, remaps| {
        Scenario::new(name, about, 300, move |lab| traffic(lab, cmdline, remaps, 1))
    };
    vec![
        with(
            "viommu",
            "the NIC behind an IOMMU the guest translates with",
            "intel_iommu=on",
            true,
        ),
        with(
            "viommu-pt",
            "the same with pass-through contexts",
            "intel_iommu=on iommu=pt",
            true,
        ),
        with(
            "viommu-strict",
            "the same with an invalidation for each unmapping",
            "intel_iommu=on,strict",
            true,
        )
        .full(),
        with(
            "viommu-no-remapping",
            "DMA translated, interrupts not",
            "intel_iommu=on intremap=off",
            false,
        )
        .full(),
        Scenario::new("viommu-smp", "four CPUs (--full)", 400, |lab| {
            traffic(lab, "intel_iommu=on", true, 4)
        })
        .full(),
        Scenario::new("viommu-unused", "the guest leaves its IOMMU alone", 300, |lab| {
            let nic = lab.bind_nic()?;
            let config = config(lab, &nic.bdf, "net,ping3,irqs,fetch,irqs", "intel_iommu=off", 1);
            lab.with_guest(&config, |guest| {
                exchange(lab, guest, "igb", PF_VECTORS)?;
                guest.expect_power_off()
            })?;
            nic.restore()?;
            Ok(Verdict::Passed)
        })
        .full(),
    ]
}

fn config(lab: &Context, device: &str, steps: &str, words: &str, cpus: u32) -> GuestConfig {
    let plain = lab.config(steps);
    GuestConfig {
        devices: vec![device.to_owned()],
        cmdline: format!("{} {words}", plain.cmdline),
        viommu: true,
        cpus,
        ..plain
    }
}

fn traffic(lab: &Context, words: &str, remaps: bool, cpus: u32) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = config(lab, &nic.bdf, STEPS, words, cpus);
    lab.with_guest(&config, |guest| {
        let said = messages(guest)?;
        for start in SAID.iter().chain(REMAPPING.iter().filter(|_| remaps)) {
            ensure!(
                said.iter().any(|line| line.starts_with(start)),
                "The guest's kernel does not say `{start}`"
            );
        }
        check_complaints(&said)?;
        exchange(lab, guest, "igb", PF_VECTORS)?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// Nothing among the kernel's messages says that something is wrong.
pub(super) fn check_complaints(said: &[String]) -> Result<()> {
    for complaint in COMPLAINTS {
        let found = said.iter().find(|line| line.contains(complaint));
        ensure!(found.is_none(), "The guest's kernel complains: {found:?}");
    }
    Ok(())
}

/// What the guest's kernel said of its IOMMU.
pub(super) fn messages(guest: &mut Guest<'_>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        match guest.expect("dmar")? {
            end if end == "end" => return Ok(lines),
            line => lines.push(line),
        }
    }
}

//! A NIC behind the guest's own IOMMU, in every way the guest's kernel can be told to use it.

use anyhow::{Result, ensure};

use super::nested::both;
use super::nic::{PF_VECTORS, exchange};
use super::{Context, Scenario, Verdict};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::{Assigned, NVME};
use crate::supplies::{HOST_SERIES, OLD_SERIES};

const STEPS: &str = "dmar,groups,net,ping3,irqs,fetch,irqs";

/// One way to tell the kernel about its IOMMU.
struct Mode {
    /// In the scenario's name.
    name: &'static str,
    about: &'static str,
    words: &'static str,
    /// Whether it translates DMA: then there are IOMMU groups.
    translates: bool,
    /// What the kernel says then, besides what it always says: parts of lines.
    says: &'static [&'static [&'static str]],
    /// What it must not say.
    never: &'static [&'static str],
}

/// What Linux says of a unit that it finds, whatever it then does with it.
const FOUND: &[&str] = &[
    "DMAR: Host address width",
    "DMAR: DRHD base: 0x000000fed90000",
    "DMAR: dmar0: reg_base_addr fed90000 ver 1:0",
];

/// What it says of a unit that translates, and in which it finds nothing wrong.
const TRANSLATES: &[&str] = &[
    "DMAR: IOMMU enabled",
    "DMAR: No RMRR found",
    "DMAR: No ATSR found",
    "DMAR: No SATC found",
    "DMAR: dmar0: Using Queued invalidation",
    "DMAR: IOMMU batching disallowed due to virtualization",
    "0000:01:00.0: Adding to iommu group",
    "DMAR: Intel(R) Virtualization Technology for Directed I/O",
];

/// What it says where interrupts are remapped.
const REMAPS: &[&str] = &[
    "DMAR-IR: IOAPIC id 0 under DRHD base",
    "DMAR-IR: Queued invalidation will be enabled to support x2apic and Intr-remapping",
    "DMAR-IR: Enabled IRQ remapping in x2apic mode",
];

const LAZY: &[&str] = &[
    "iommu: Default domain type: Translated",
    "iommu: DMA domain TLB invalidation policy: lazy mode",
];
const STRICT: &[&str] = &[
    "iommu: Default domain type: Translated",
    "iommu: DMA domain TLB invalidation policy: strict mode",
];
const PASS_THROUGH: &[&str] = &["iommu: Default domain type: Passthrough"];

/// The first two are in the default tier.
const MODES: [Mode; 5] = [
    Mode {
        name: "",
        about: "the NIC behind an IOMMU the guest translates with",
        words: "intel_iommu=on",
        translates: true,
        says: &[TRANSLATES, REMAPS, LAZY],
        never: &[],
    },
    Mode {
        name: "-pt",
        about: "the same with pass-through contexts",
        words: "intel_iommu=on iommu=pt",
        translates: true,
        says: &[TRANSLATES, REMAPS, PASS_THROUGH],
        never: &["TLB invalidation policy"],
    },
    Mode {
        name: "-strict",
        about: "the same with an invalidation for each unmapping",
        words: "intel_iommu=on,strict",
        translates: true,
        says: &[TRANSLATES, REMAPS, STRICT],
        never: &[],
    },
    Mode {
        name: "-no-remapping",
        about: "DMA translated, interrupts not",
        words: "intel_iommu=on intremap=off",
        translates: true,
        says: &[TRANSLATES, LAZY],
        never: &["Enabled IRQ remapping"],
    },
    Mode {
        name: "-unused",
        about: "the guest leaves its IOMMU alone",
        words: "intel_iommu=off",
        translates: false,
        says: &[&["DMAR: IOMMU disabled"], REMAPS],
        never: &[
            "Virtualization Technology for Directed I/O",
            "Adding to iommu group",
        ],
    },
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

/// Each mode with each kernel and number of CPUs, and two devices at once.
pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (series, kernel) in [(HOST_SERIES, ""), (OLD_SERIES, "-6.1")] {
        for (cpus, smp) in [(1, ""), (4, "-smp")] {
            for (index, mode) in MODES.iter().enumerate() {
                let name = format!("viommu{kernel}{smp}{}", mode.name);
                let about = format!("{} (Linux {series}, {cpus} CPU)", mode.about);
                let scenario = Scenario::new(name, about, 600, move |lab| traffic(lab, mode, series, cpus));
                let is_default = index < 2 && kernel.is_empty() && smp.is_empty();
                scenarios.push(if is_default { scenario } else { scenario.full() });
            }
        }
    }
    scenarios.push(
        Scenario::new(
            "viommu-two-devices",
            "NIC and drive in a domain each: data on both at once",
            600,
            two_devices,
        )
        .full(),
    );
    scenarios.push(Scenario::new(
        "viommu-alone",
        "no passed device: the guest takes its IOMMU, and the console's interrupts go through it",
        120,
        alone,
    ));
    scenarios
}

fn config(lab: &Context, devices: &[&Assigned<'_>], steps: &str, words: &str) -> GuestConfig {
    let plain = lab.config(steps);
    GuestConfig {
        devices: devices.iter().map(|device| device.bdf.clone()).collect(),
        cmdline: format!("{} {words}", plain.cmdline),
        viommu: true,
        ..plain
    }
}

fn traffic(lab: &Context, mode: &Mode, series: &'static str, cpus: u32) -> Result<Verdict> {
    if !lab.series.contains(&series) {
        return Ok(Verdict::Skipped(format!("this Debian has no {series} kernel")));
    }
    let nic = lab.bind_nic()?;
    let config = GuestConfig {
        series,
        cpus,
        ..config(lab, &[&nic], STEPS, mode.words)
    };
    lab.with_guest(&config, |guest| {
        let said = guest.expect_list("dmar")?;
        // What a unit is called and how wide it is belongs to strait.
        let found = FOUND.iter().filter(|_| lab.vmm == Vmm::Strait);
        for words in mode.says.iter().copied().flatten().chain(found) {
            ensure!(
                said.iter().any(|line| line.contains(words)),
                "The guest's kernel does not say `{words}`"
            );
        }
        check_silence(&said, mode.never)?;
        check_complaints(&said)?;
        check_groups(&guest.expect_list("group")?, mode, 1)?;
        exchange(lab, guest, "igb", PF_VECTORS)?;
        let remapped: usize = guest.expect("remapped")?.parse()?;
        let remaps = said.iter().any(|line| line.contains("Enabled IRQ remapping"));
        ensure!(
            (remapped > 0) == remaps,
            "{remapped} vectors of the NIC are remapped"
        );
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// Nothing among the kernel's messages says that something is wrong.
pub(super) fn check_complaints(said: &[String]) -> Result<()> {
    check_silence(said, &COMPLAINTS)
}

fn check_silence(said: &[String], complaints: &[&str]) -> Result<()> {
    for complaint in complaints {
        let found = said.iter().find(|line| line.contains(complaint));
        ensure!(found.is_none(), "The guest's kernel complains: {found:?}");
    }
    Ok(())
}

/// Each passed device is alone in its group; without translation there are no groups.
fn check_groups(groups: &[String], mode: &Mode, devices: u32) -> Result<()> {
    if !mode.translates {
        ensure!(groups.is_empty(), "There are IOMMU groups: {groups:?}");
        return Ok(());
    }
    for bus in 1..=devices {
        let alone = format!("0000:{bus:02x}:00.0");
        ensure!(
            groups.contains(&alone),
            "{alone} is not alone in a group: {groups:?}"
        );
    }
    Ok(())
}

fn two_devices(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let drive = Assigned::bind(lab.agent, NVME)?;
    let mode = &MODES[0];
    let plain = config(lab, &[&nic, &drive], "groups,net,ping3,both,dmar", mode.words);
    let config = GuestConfig {
        initrd: "devices",
        cmdline: format!("{} lab.drivers=igb,nvme", plain.cmdline),
        ..plain
    };
    lab.with_guest(&config, |guest| {
        check_groups(&guest.expect_list("group")?, mode, 2)?;
        let answered = guest.expect("ping")?;
        ensure!(answered == "3", "{answered} of 3 pings were answered");
        both(lab, guest, "")?;
        check_complaints(&guest.expect_list("dmar")?)?;
        guest.expect_power_off()
    })?;
    drive.restore()?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// What is typed arrives by interrupt.
fn alone(lab: &Context) -> Result<Verdict> {
    let config = config(lab, &[], "dmar,groups,ask,wires", "intel_iommu=on");
    lab.with_guest(&config, |guest| {
        let said = guest.expect_list("dmar")?;
        for words in REMAPS {
            let found = said.iter().any(|line| line.contains(words));
            ensure!(found, "The guest's kernel does not say `{words}`");
        }
        check_complaints(&said)?;
        let groups = guest.expect_list("group")?;
        let passed = groups.iter().find(|group| group.contains("0000:01:"));
        ensure!(passed.is_none(), "There is a group of a device: {passed:?}");
        guest.expect("ask")?;
        guest.type_line("typed")?;
        let answer = guest.expect("answer")?;
        ensure!(answer == "typed", "What was typed came as {answer}");
        let wire = guest.expect("wire")?;
        ensure!(wire == "IR-IO-APIC", "The console's interrupts come by {wire}");
        guest.expect_power_off()
    })?;
    Ok(Verdict::Passed)
}

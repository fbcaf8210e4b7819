//! A NIC behind the guest's own IOMMU, in every way the guest's kernel can be told to use it.

use anyhow::{Result, bail, ensure};

use super::nic::{PF_VECTORS, exchange};
use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig, Vmm, complaints, says};
use crate::lab::devices::{NIC, NVME};
use crate::supplies::{HOST_SERIES, OLD_SERIES};

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

fn traffic(lab: &Lab<'_>, mode: &Mode, series: &'static str, cpus: u32) -> Result<()> {
    lab.needs_kernel(series)?;
    let config = GuestConfig {
        series,
        cpus,
        ..GuestConfig::with(&[&lab.take(NIC.at())?]).behind_iommu(mode.words)
    };
    lab.run(&config, |guest| {
        let said = complaints(guest)?;
        // What a unit is called and how wide it is belongs to strait.
        let found = FOUND.iter().filter(|_| lab.vmm == Vmm::Strait);
        for words in mode.says.iter().copied().flatten().chain(found) {
            ensure!(
                is_said(&said, words),
                "The guest's kernel does not say `{words}`"
            );
        }
        for words in mode.never {
            ensure!(!is_said(&said, words), "The guest's kernel says `{words}`");
        }
        check_groups(&groups(guest)?, mode, 1)?;
        let vectors = exchange(lab, guest, "igb", PF_VECTORS)?;
        let remaps = is_said(&said, "Enabled IRQ remapping");
        ensure!(
            vectors.iter().any(|vector| vector.is_remapped) == remaps,
            "Whether vectors of the NIC are remapped is not as the kernel says: {vectors:?}"
        );
        Ok(())
    })
}

fn is_said(said: &[String], words: &str) -> bool {
    said.iter().any(|line| line.contains(words))
}

/// The devices of each IOMMU group.
fn groups(guest: &mut Guest<'_>) -> Result<Vec<String>> {
    let lines = guest.sh("cd /sys/kernel/iommu_groups; for group in *; do
            [ ! -e \"$group/devices\" ] || echo $(ls \"$group/devices\")
        done")?;
    Ok(lines.lines().map(str::to_owned).collect())
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

fn two_devices(lab: &Lab<'_>) -> Result<()> {
    let (nic, drive) = (lab.take(NIC.at())?, lab.take(NVME.at())?);
    let mode = &MODES[0];
    let config = GuestConfig {
        initrd: "devices",
        ..GuestConfig::with(&[&nic, &drive]).behind_iommu(mode.words)
    };
    lab.run(&config, |guest| {
        check_groups(&groups(guest)?, mode, 2)?;
        guest.sh("load igb nvme")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        both(lab, guest, 64)?;
        complaints(guest).map(drop)
    })
}

/// Data to and from the NIC and a drive at once.
pub(super) fn both(lab: &Lab<'_>, guest: &mut Guest<'_>, mebibytes: u32) -> Result<()> {
    let said = guest.sh(&format!(
        "({}) > /run/hash & keep /dev/nvme0n1 {mebibytes}; wait; cat /run/hash",
        lab.eth0().fetch_line()
    ))?;
    let hashes: Vec<&str> = said.lines().collect();
    let [wrote, read, fetched] = hashes[..] else {
        bail!("The guest says {said}, not three hashes");
    };
    ensure!(
        wrote == read,
        "What was written with SHA-256 {wrote} came back with {read}"
    );
    lab.eth0().check(fetched)
}

/// What is typed arrives by interrupt.
fn alone(lab: &Lab<'_>) -> Result<()> {
    lab.run(&GuestConfig::default().behind_iommu("intel_iommu=on"), |guest| {
        let said = complaints(guest)?;
        for words in REMAPS {
            ensure!(
                is_said(&said, words),
                "The guest's kernel does not say `{words}`"
            );
        }
        let groups = groups(guest)?;
        let passed = groups.iter().find(|group| group.contains("0000:01:"));
        ensure!(passed.is_none(), "There is a group of a device: {passed:?}");
        says(guest, "grep ttyS0 /proc/interrupts | grep -o '[A-Z-]*IO-APIC'", "IR-IO-APIC")
    })
}

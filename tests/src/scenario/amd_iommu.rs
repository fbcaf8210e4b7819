//! A host with an AMD IOMMU: scenarios of its own, and most of the usual ones once more.
//!
//! QEMU's unit tells the host's kernel of no fault, so none of these looks for one in its log.

use anyhow::{Context as _, Result, ensure};

use super::nic::PF_VECTORS;
use super::odd_machines::{refuses, unsafe_interrupts};
use super::viommu_dma::blocked;
use super::{
    Kind, Lab, Scenario, bad_input, device_errors, device_leaves, devices, host_command, hotplug, life_cycle, nested, nested_life,
    nic, reset, viommu, viommu_dma,
};
use crate::guest::GuestConfig;
use crate::lab::devices::{EDU, NIC};

/// Addresses of HyperTransport (AMD64 Architecture Programmer's Manual, vol. 2; `HT_RANGE_START`,
/// drivers/iommu/amd/amd_iommu_types.h).
const HOLE: (u64, u64) = (0xfd_0000_0000, 0xff_ffff_ffff);

/// What is done here as on the usual machine.
const AGAIN: [&str; 35] = [
    "pf",
    "vf",
    "pf-affinity",
    "pf-memory-3g",
    "intx-rtl8139",
    "intx-igb",
    "msi-igb",
    "msix-e1000e",
    "msi-xhci",
    "nvme",
    "edu",
    "media",
    "groups",
    "config-sweep",
    "viommu",
    "viommu-pt",
    "viommu-strict",
    "viommu-two-devices",
    "viommu-neighbours",
    "nested-strait",
    "nested-qemu",
    "nested-vf",
    "nested-two-devices",
    "nested-reboot",
    "reboot",
    "kill",
    "reset-methods",
    "unbind-viommu",
    "error-unplug",
    "host-bind-nic",
    "host-bind-vf",
    "host-bind-behind-bridge",
    "bad-device-driver",
    "bad-device-group",
    "hotplug",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let usual = [
        nic::scenarios(),
        devices::scenarios(),
        viommu::scenarios(),
        viommu_dma::scenarios(),
        nested::scenarios(),
        nested_life::scenarios(),
        life_cycle::scenarios(),
        reset::scenarios(),
        device_leaves::scenarios(),
        device_errors::scenarios(),
        host_command::scenarios(),
        bad_input::scenarios(),
        hotplug::scenarios(),
    ];
    let again = usual.into_iter().flatten();
    let again = again.filter(|one| AGAIN.contains(&one.name.as_str())).map(again_here);
    own().into_iter().chain(again).collect()
}

fn own() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "amd-iommu",
            "an AMD IOMMU blocks DMA, the doctor knows it, and a NIC's interrupts are remapped by it",
            150,
            first_of_all,
        )
        .strait_only()
        .on(Kind::AmdIommu),
        Scenario::new(
            "amd-hole",
            "what AMD hosts keep for themselves below 1 TiB is in no guest's way, with an IOMMU of its own or without",
            200,
            hole,
        )
        .strait_only()
        .full()
        .on(Kind::AmdIommu),
        Scenario::new(
            "amd-no-remapping",
            "firmware that spoils interrupt remapping: doctor and refusal say so, the module option does without",
            150,
            without_remapping,
        )
        .strait_only()
        .full()
        .on(Kind::AmdWithoutRemapping),
        again_here(Scenario::new(
            "viommu-faults",
            "DMA that the guest does not allow does not arrive",
            300,
            |lab| blocked(lab).map(drop),
        )),
        Scenario::new(
            "amd-iommu-off",
            "amd_iommu=off: the doctor and a start name the word to take away, and no other",
            60,
            |lab| is_off(lab, &["take amd_iommu=off from the kernel's command line and reboot"]),
        )
        .strait_only()
        .full()
        .on(Kind::AmdIommuOff),
        Scenario::new(
            "amd-no-iommu",
            "an AMD CPU, and firmware without an IOMMU: that alone is to be turned on",
            60,
            |lab| is_off(lab, &["turn it on in the firmware"]),
        )
        .strait_only()
        .full()
        .on(Kind::NoIommu),
    ]
}

/// A scenario of the usual machine.
fn again_here(scenario: Scenario) -> Scenario {
    Scenario {
        name: format!("amd-{}", scenario.name),
        about: format!("behind an AMD IOMMU: {}", scenario.about),
        full: true,
        kind: Kind::AmdIommu,
        ..scenario
    }
}

fn first_of_all(lab: &Lab<'_>) -> Result<()> {
    translates(lab)?;
    let said = doctor(lab)?;
    for words in [
        "AMD-Vi: there is an ACPI table IVRS",
        "ivhd0",
        "PASS Does the IOMMU reach all of the guest's memory?",
        "PASS Are device interrupts remapped?",
        "0xfd00000000-0xffffffffff (reserved)",
    ] {
        ensure!(said.contains(words), "The doctor does not say `{words}`: {said}");
    }
    lab.run(&GuestConfig::with(&[&lab.take(NIC.at())?]), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        let routes = "grep -c 'IR-PCI-MSIX.*vfio-msix.*0000:01:00.0' /proc/interrupts";
        let remapped: usize = lab.agent.sh(routes)?.trim().parse()?;
        ensure!(remapped >= PF_VECTORS, "The host remaps {remapped} vectors of the NIC");
        Ok(())
    })
}

/// The emulated unit translates: a probe on the host itself, through VFIO.
fn translates(lab: &Lab<'_>) -> Result<()> {
    let edu = lab.take(EDU.at())?;
    let said = lab.agent.sh(&format!("lab probe faults {edu}"))?;
    let blocked = said.lines().filter(|line| line.starts_with("blocked ")).count();
    ensure!(blocked == 4, "The probe says {said}");
    Ok(())
}

/// What the doctor says of the NIC, in one line. It must not take an AMD host for one of Intel's.
fn doctor(lab: &Lab<'_>) -> Result<String> {
    let said = lab.script(&format!("strait host doctor {} | tr -s ' \\n' ' '", NIC.at()))?.output;
    for words in ["intel_iommu", "DMAR:", "UNKNOWN"] {
        ensure!(!said.contains(words), "The doctor says `{words}`: {said}");
    }
    Ok(said)
}

fn without_remapping(lab: &Lab<'_>) -> Result<()> {
    let said = doctor(lab)?;
    for words in ["FAIL Are device interrupts remapped?", "dmesg | grep AMD-Vi", "ivrs_ioapic"] {
        ensure!(said.contains(words), "The doctor does not say `{words}`: {said}");
    }
    unsafe_interrupts(lab)
}

/// Between 0xfd_0000_0000 and 1 TiB are HyperTransport's own addresses, which devices cannot be given. A guest behind an
/// IOMMU of its own keeps clear of them, since they are a window of its host bridge; for another, no BAR is there.
fn hole(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let window = "grep -i 'PCI Bus 0000:00' /proc/iomem | tr -d ' ' | cut -d : -f 1";
    let config = GuestConfig::with(&[&nic]);
    let ends = |text: &str| -> Result<Vec<(u64, u64)>> {
        let range = |line: &str| {
            let (first, last) = line.split_once('-').context("/proc/iomem has ranges")?;
            Ok((u64::from_str_radix(first, 16)?, u64::from_str_radix(last, 16)?))
        };
        text.lines().map(range).collect()
    };
    let plain = lab.run(&config, |guest| guest.sh(window))?;
    let crossing = ends(&plain)?.into_iter().find(|(first, last)| *last >= HOLE.0 && *first <= HOLE.1);
    ensure!(crossing.is_none(), "A window for BARs is at {crossing:x?}");
    let behind = lab.run(&config.behind_iommu("intel_iommu=on,strict"), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().fetch(guest)?;
        guest.sh(window)
    })?;
    ensure!(ends(&behind)?.contains(&HOLE), "The guest's windows are {behind}");
    Ok(())
}

/// The doctor and `strait run` give the same remedy, which is the right one for an AMD host.
fn is_off(lab: &Lab<'_>, remedy: &[&str]) -> Result<()> {
    let said = doctor(lab)?;
    let words = [remedy, &["FAIL Does the kernel use the IOMMU?"]].concat();
    for words in words {
        ensure!(said.contains(words), "The doctor does not say `{words}`: {said}");
    }
    let nic = NIC.at();
    refuses(lab, &GuestConfig::with(&[nic]), &[&[nic, "IOMMU is off"], remedy].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_to_run_again_is_one() {
        let names: Vec<String> = scenarios().into_iter().map(|one| one.name).collect();
        for name in AGAIN {
            assert!(names.contains(&format!("amd-{name}")), "{name}");
        }
    }
}

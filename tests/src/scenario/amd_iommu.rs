//! A host with an AMD IOMMU.
//!
//! QEMU's remaps no interrupts that a Linux host could do with (its timer's do not arrive), so VFIO is told to do
//! without, as a user of such a machine would. And it takes every device for one of bus 0 (QEMU 10.0,
//! hw/i386/amd_iommu.c: the bus's number is asked for before buses have numbers), so that only those are tried which are
//! there: no virtual functions, and no igb.

use anyhow::{Result, ensure};

use super::odd_machines::{UNSAFE_INTERRUPTS, refuses};
use super::zoo::visit;
use super::{Kind, Lab, Scenario};
use crate::guest::GuestConfig;
use crate::lab::zoo::{self, TEACHING};

/// By wire, by MSI, by MSI-X; a NIC, drives, sound, a picture.
const VISITED: [&str; 8] = [
    "e1000e",
    "nvme",
    "qemu-xhci",
    "e1000",
    "rtl8139",
    "lsi53c895a",
    "intel-hda",
    "VGA",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let own = vec![
        Scenario::new(
            "amd-translates",
            "behind an AMD IOMMU, DMA to what is not mapped does not arrive",
            120,
            translates,
        ),
        Scenario::new(
            "amd-refuses",
            "there, a host that does not remap interrupts: refused with the module option, which does without",
            180,
            refused,
        )
        .strait_only(),
        Scenario::new("amd-doctor", "there, the doctor knows whose IOMMU it is", 90, doctor).strait_only(),
    ];
    let visits = zoo::ALL
        .iter()
        .filter(|one| VISITED.contains(&one.name))
        .map(|one| visit("amd", one.name, vec![one]).without_remapping().full());
    own.into_iter().chain(visits).map(|one| one.on(Kind::AmdIommu)).collect()
}

impl Scenario {
    /// The same on a host whose devices VFIO must trust with interrupts.
    fn without_remapping(self) -> Self {
        let Self { about, run, .. } = self;
        Self {
            about: format!("behind an AMD IOMMU, {about}"),
            run: Box::new(move |lab| {
                lab.agent.sh(&format!("echo Y > {UNSAFE_INTERRUPTS}"))?;
                let result = run(lab);
                lab.agent.sh(&format!("echo N > {UNSAFE_INTERRUPTS}"))?;
                result
            }),
            ..self
        }
    }
}

/// The emulated unit translates: a probe on the host itself, through VFIO. QEMU's tells the host's kernel of no fault.
fn translates(lab: &Lab<'_>) -> Result<()> {
    let edu = lab.take(TEACHING)?;
    let said = lab.agent.sh(&format!(
        "echo Y > {UNSAFE_INTERRUPTS}; lab probe faults {edu}; echo N > {UNSAFE_INTERRUPTS}"
    ))?;
    let blocked = said.lines().filter(|line| line.starts_with("blocked ")).count();
    ensure!(blocked == 4, "The probe says {said}");
    Ok(())
}

fn refused(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig::with(&[&lab.take(TEACHING)?]);
    refuses(lab, &config, &[TEACHING, "allow_unsafe_interrupts", "any interrupt"])
}

fn doctor(lab: &Lab<'_>) -> Result<()> {
    let edu = lab.take(TEACHING)?;
    let said = lab.script(&format!("strait host doctor {edu}"))?.output;
    for words in ["AMD-Vi: there is an ACPI table IVRS", "remap"] {
        ensure!(said.contains(words), "The doctor does not say `{words}`: {said}");
    }
    ensure!(!said.contains("intel_iommu"), "The doctor speaks of Intel's IOMMU: {said}");
    Ok(())
}

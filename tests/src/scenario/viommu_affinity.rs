//! Interrupts that the guest remaps are moved between CPUs while they are in use.

use super::nic::moved_interrupts;
use super::{Lab, Scenario};
use crate::guest::GuestConfig;
use crate::lab::devices::NIC;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "viommu-affinity",
        "two CPUs, remapped interrupts moved between them while data arrives",
        300,
        affinity,
    )
        .full()]
}

fn affinity(lab: &Lab<'_>) -> anyhow::Result<()> {
    let config = GuestConfig {
        cpus: 2,
        ..GuestConfig::with(&[&lab.take(NIC.at())?]).behind_iommu("intel_iommu=on")
    };
    lab.run(&config, |guest| moved_interrupts(lab, guest))
}

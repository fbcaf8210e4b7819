//! Interrupts that the guest remaps, while they are in use.

use anyhow::Result;

use super::nic::moved_interrupts;
use super::{Context, Scenario, Verdict};
use crate::guest::GuestConfig;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "viommu-affinity",
        "two CPUs, remapped interrupts moved between them while data arrives",
        300,
        affinity,
    )]
}

fn affinity(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let plain = lab.config_with(&nic, "facts,net,ping3,affinity,irqs");
    let config = GuestConfig {
        cmdline: format!("{} intel_iommu=on", plain.cmdline),
        viommu: true,
        cpus: 2,
        ..plain
    };
    lab.with_guest(&config, |guest| moved_interrupts(lab, guest))?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

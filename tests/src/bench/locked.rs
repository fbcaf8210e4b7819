//! Memory that a VMM keeps locked for its devices' DMA while their drivers are at rest.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Bench;
use super::process;
use crate::guest::{GuestConfig, Vmm};
use crate::lab::{Assigned, NIC, NVME};

/// Devices and what the guest's kernel is told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Locked {
    pub(super) devices: usize,
    pub(super) words: &'static str,
    pub(super) kib: u64,
}

/// What is measured: NIC, or NIC and drive, each where the guest translates and where it does not.
pub(super) const CASES: [(usize, &str); 4] = [
    (1, "intel_iommu=on,strict"),
    (2, "intel_iommu=on,strict"),
    (1, "intel_iommu=on iommu=pt"),
    (2, "intel_iommu=on iommu=pt"),
];

/// One guest for each case.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm) -> Result<Vec<Locked>> {
    let devices = [
        Assigned::bind(bench.agent, NIC)?,
        Assigned::bind(bench.agent, NVME)?,
    ];
    let mut all = Vec::new();
    for (count, words) in CASES {
        let config = GuestConfig {
            initrd: "devices",
            devices: devices
                .iter()
                .take(count)
                .map(|device| device.bdf.clone())
                .collect(),
            cmdline: format!(
                "console=ttyS0 panic=-1 quiet lab.do=net,ask lab.drivers=igb,nvme lab.address=10.0.2.15 {words}"
            ),
            viommu: true,
            ..GuestConfig::default()
        };
        let kib = bench.with_guest(vmm, &config, |guest| {
            guest.expect("ask")?;
            // The second driver may still be at its start.
            std::thread::sleep(Duration::from_secs(2));
            let kib = process::locked_kib(bench.agent, guest.pid)?;
            guest.type_line("poweroff")?;
            guest.expect_power_off()?;
            Ok(kib)
        })?;
        all.push(Locked {
            devices: count,
            words,
            kib,
        });
    }
    for device in devices {
        device.restore()?;
    }
    Ok(all)
}

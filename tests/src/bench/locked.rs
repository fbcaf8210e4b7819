//! Memory that a VMM keeps locked for its devices' DMA while their drivers are at rest.

use std::time::Duration;

use anyhow::Result;
use strait_bench::counting::locked_kib;

use super::Bench;
use crate::guest::{GuestConfig, Vmm};
use crate::lab::Assigned;
use crate::lab::devices::{NIC, NVME};

/// Devices, and what the guest's kernel is told: NIC, or NIC and drive, each where the guest translates and where it does not.
pub(super) const CASES: [(usize, &str); 4] = [
    (1, "intel_iommu=on,strict"),
    (2, "intel_iommu=on,strict"),
    (1, "intel_iommu=on iommu=pt"),
    (2, "intel_iommu=on iommu=pt"),
];

/// KiB of one guest for each case.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm) -> Result<Vec<u64>> {
    let functions = [NIC.at(), NVME.at()];
    let taken = functions
        .iter()
        .map(|function| Assigned::bind(bench.agent, function))
        .collect::<Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for (count, words) in CASES {
        let config = GuestConfig {
            initrd: "devices",
            ..GuestConfig::with(&functions[..count]).behind_iommu(words)
        };
        let kib = bench.with_guest(vmm, &config, |guest| {
            guest.ready()?;
            guest.sh("load igb nvme; net eth0 10.0.2.15")?;
            // The second driver may still be at its start.
            std::thread::sleep(Duration::from_secs(2));
            let kib = locked_kib(bench.agent, guest.pid)?;
            guest.power_off()?;
            Ok(kib)
        })?;
        all.push(kib);
    }
    taken.into_iter().try_for_each(Assigned::restore)?;
    Ok(all)
}

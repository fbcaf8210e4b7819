//! Kernels that the lab host does not have, and page tables of four levels: each takes commands, and its NIC works.

use anyhow::{Result, ensure};

use super::nic::{PF_VECTORS, exchange};
use super::{Kind, Lab, Scenario};
use crate::guest::{Guest, GuestConfig, complaints, kept, says};
use crate::lab::devices::{NIC, NVME, REPORTER};
use crate::supplies::HOST_SERIES;
use crate::supplies::kernel::series_and_flavour;

/// Tables of five levels, as /proc/cpuinfo calls them.
const FIVE_LEVELS: &str = "grep -cw la57 /proc/cpuinfo || true";

pub(super) fn scenarios() -> Vec<Scenario> {
    let of = |series: &'static str, about: &str| {
        Scenario::new(
            format!("kernel-{series}"),
            format!("{about} with two CPUs: a NIC, over a reboot"),
            300,
            move |lab| further(lab, series),
        )
        .full()
        .with_further_kernel()
    };
    vec![
        Scenario::new(
            "kernel-4-level",
            "page tables of four levels, where the CPU could have five",
            150,
            four_levels,
        ),
        Scenario::new(
            "kernel-4-level-host",
            "a host with tables of four levels, whose CPU has five and 52 address bits",
            300,
            four_level_host,
        )
        .full()
        .on(Kind::FourLevels),
        of("7", "the newest kernel of Debian's backports"),
        Scenario::new(
            "kernel-7-viommu",
            "the newest kernel with an IOMMU of its own, strict: a NIC, 32 MiB intact",
            600,
            behind_iommu,
        )
        .full()
        .with_further_kernel(),
        of("6.12-rt", "Debian's kernel for real time"),
        of("6.12-cloud", "Debian's kernel for clouds, with a virtio NIC passed through,"),
    ]
}

fn four_levels(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let config = GuestConfig::with(&[&nic]).told("no5lvl");
    lab.run(&config, |guest| {
        works(lab, guest, HOST_SERIES)?;
        says(guest, FIVE_LEVELS, "0")
    })
}

fn four_level_host(lab: &Lab<'_>) -> Result<()> {
    lab.agent.sh("grep -q '52 bits physical' /proc/cpuinfo && ! grep -qw la57 /proc/cpuinfo")?;
    let config = GuestConfig {
        initrd: "devices",
        ..GuestConfig::with(&[&lab.take(NIC.at())?, &lab.take(NVME.at())?])
    };
    lab.run(&config, |guest| {
        guest.sh("load igb nvme")?;
        works(lab, guest, HOST_SERIES)?;
        kept(guest, "/dev/nvme0n1", 16)
    })
}

/// Five levels where the host has them.
fn further(lab: &Lab<'_>, series: &'static str) -> Result<()> {
    lab.needs_kernel(series)?;
    let nic = match series {
        "6.12-cloud" => REPORTER,
        _ => NIC,
    };
    let config = GuestConfig {
        series,
        cpus: 2,
        ..GuestConfig::with(&[&lab.take(nic.at())?])
    };
    let levels = lab.agent.sh(FIVE_LEVELS)?;
    lab.run(&config, |guest| {
        works(lab, guest, series)?;
        guest.reboot()?;
        works(lab, guest, series)?;
        says(guest, "nproc", "2")?;
        says(guest, FIVE_LEVELS, levels.trim())
    })
}

fn behind_iommu(lab: &Lab<'_>) -> Result<()> {
    lab.needs_kernel("7")?;
    let config = GuestConfig {
        series: "7",
        cpus: 2,
        ..GuestConfig::with(&[&lab.take(NIC.at())?]).behind_iommu("intel_iommu=on,strict")
    };
    lab.run(&config, |guest| {
        complaints(guest)?;
        says(guest, "cat /sys/kernel/iommu_groups/*/type | sort -u", "DMA")?;
        let vectors = exchange(lab, guest, "igb", PF_VECTORS)?;
        let remapped = vectors.iter().any(|vector| vector.is_remapped);
        ensure!(remapped, "The NIC's vectors do not go through the IOMMU: {vectors:?}");
        Ok(())
    })
}

fn works(lab: &Lab<'_>, guest: &mut Guest<'_>, series: &str) -> Result<()> {
    let version = guest.sh("uname -rv")?;
    let (number, flavour) = series_and_flavour(series);
    ensure!(
        version.starts_with(&format!("{number}.")) && version.contains(flavour),
        "The guest runs {version}, expected {series}"
    );
    complaints(guest)?;
    let (interface, driver) = match flavour {
        "cloud" => (lab.interface("eth0", "10.0.6"), "virtio_net"),
        _ => (lab.eth0(), "igb"),
    };
    interface.up(guest, driver)?;
    interface.ping(guest)
}

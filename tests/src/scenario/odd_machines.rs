//! Hosts whose IOMMU or CPU is not all that it could be.

use anyhow::{Result, ensure};

use super::{Kind, Lab, Scenario};
use crate::guest::{GuestConfig, complaints, kept};
use crate::lab::devices::{NIC, NVME};

/// More than what fits below the hole of 32 bits.
const MEMORY_MIB: u64 = 3584;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "narrow-iommu",
            "an IOMMU of 39 bits: RAM above 4 GiB, a NIC and a drive with a 64-bit BAR",
            300,
            narrow,
        )
        .full()
        .on(Kind::Narrow),
        Scenario::new(
            "narrow-viommu",
            "a virtual IOMMU there: 48 bits are refused, without a width it has the 39 of the host's",
            300,
            narrow_viommu,
        )
        .strait_only()
        .full()
        .on(Kind::Narrow),
        Scenario::new(
            "unsafe-interrupts",
            "no interrupt remapping: refused with the module option, which does without",
            240,
            unsafe_interrupts,
        )
        .strait_only()
        .full()
        .on(Kind::WithoutRemapping),
        Scenario::new(
            "without-xsave",
            "a CPU without XSAVE: the guest reboots",
            150,
            without_xsave,
        )
        .strait_only()
        .full()
        .on(Kind::WithoutXsave),
    ]
}

fn narrow(lab: &Lab<'_>) -> Result<()> {
    lab.needs_memory(MEMORY_MIB)?;
    let config = GuestConfig {
        initrd: "devices",
        memory_mib: MEMORY_MIB,
        ..GuestConfig::with(&[&lab.take(NIC.at())?, &lab.take(NVME.at())?])
    };
    let finished = lab.start(&config, |guest| {
        guest.ready()?;
        guest.sh("load igb nvme")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        kept(guest, "/dev/nvme0n1", 64)?;
        guest.power_off()
    })?;
    ensure!(
        !finished.errors.contains("will not work"),
        "Not all BARs can be reached: {}",
        finished.errors
    );
    Ok(())
}

fn narrow_viommu(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig::with(&[&lab.take(NIC.at())?]).told("intel_iommu=on,strict");
    let wide = GuestConfig {
        more: &["--viommu", "intel,aw-bits=48"],
        ..config.clone()
    };
    refuses(lab, &wide, &["aw-bits=48", "39 bits"])?;
    lab.run(&config.behind_iommu(""), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        complaints(guest).map(drop)
    })
}

/// Lets VFIO pass devices whose interrupts nobody checks.
pub(super) const UNSAFE_INTERRUPTS: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

/// The refusal, and that what it names is true.
pub(super) fn unsafe_interrupts(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig::with(&[&lab.take(NIC.at())?]);
    refuses(lab, &config, &[NIC.at(), "allow_unsafe_interrupts", "any interrupt"])?;
    lab.agent.sh(&format!("echo Y > {UNSAFE_INTERRUPTS}"))?;
    lab.run(&config, |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })?;
    lab.agent.sh(&format!("echo N > {UNSAFE_INTERRUPTS}"))?;
    Ok(())
}

/// Strait ends at once, with these words.
pub(super) fn refuses(lab: &Lab<'_>, config: &GuestConfig, words: &[&str]) -> Result<()> {
    let refused = lab.start(config, |guest| guest.expect_end(1))?;
    let said = refused.errors.trim_end();
    for word in words {
        ensure!(said.contains(word), "It does not say `{word}`: {said}");
    }
    Ok(())
}

fn without_xsave(lab: &Lab<'_>) -> Result<()> {
    lab.agent.sh("! grep -qw xsave /proc/cpuinfo")?;
    lab.run(&GuestConfig::default(), |guest| guest.reboot())
}

//! Hosts whose IOMMU or CPU is not all that it could be.

use anyhow::{Result, ensure};

use super::viommu::check_complaints;
use super::{Context, Host, Scenario, Verdict};
use crate::guest::GuestConfig;
use crate::lab::{Assigned, NIC};

/// The drive, whose BAR has 64 bits.
const NVME: &str = "0000:02:00.0";

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
        .on(Host::Narrow),
        Scenario::new(
            "narrow-viommu",
            "a virtual IOMMU there: 48 bits are refused, without a width it has the 39 of the host's",
            300,
            narrow_viommu,
        )
        .strait_only()
        .full()
        .on(Host::Narrow),
        Scenario::new(
            "unsafe-interrupts",
            "no interrupt remapping: refused with the module option, which does without",
            240,
            unsafe_interrupts,
        )
        .strait_only()
        .full()
        .on(Host::WithoutRemapping),
        Scenario::new(
            "without-xsave",
            "a CPU without XSAVE: the guest reboots",
            150,
            without_xsave,
        )
        .strait_only()
        .full()
        .on(Host::WithoutXsave),
    ]
}

fn narrow(lab: &Context) -> Result<Verdict> {
    let available = lab.agent.sh("awk '/MemAvailable/ {print $2}' /proc/meminfo")?;
    let available_mib = available.trim().parse::<u64>()? >> 10;
    if available_mib < MEMORY_MIB + 512 {
        let reason = format!("the lab host has only {available_mib} MiB free");
        return Ok(Verdict::Skipped(reason));
    }
    let (nic, drive) = (lab.bind_nic()?, Assigned::bind(lab.agent, NVME)?);
    let config = lab.config("net,ping3,fetch,nvme");
    let config = GuestConfig {
        initrd: "devices",
        memory_mib: MEMORY_MIB,
        devices: vec![nic.bdf.clone(), drive.bdf.clone()],
        cmdline: format!("{} lab.drivers=igb,nvme", config.cmdline),
        ..config
    };
    let finished = lab.with_guest(&config, |guest| {
        let answered = guest.expect("ping")?;
        ensure!(answered == "3", "{answered} of 3 pings were answered");
        lab.check_hash(&guest.expect("fetch")?)?;
        let (wrote, read) = (guest.expect("wrote")?, guest.expect("read")?);
        ensure!(wrote == read, "64 MiB with SHA-256 {wrote} came back with {read}");
        guest.expect_power_off()
    })?;
    ensure!(
        !finished.errors.contains("will not work"),
        "Not all BARs can be reached: {}",
        finished.errors
    );
    nic.restore()?;
    drive.restore()?;
    Ok(Verdict::Passed)
}

fn narrow_viommu(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let plain = lab.config_with(&nic, "net,ping3,fetch,dmar");
    let config = GuestConfig {
        cmdline: format!("{} intel_iommu=on,strict", plain.cmdline),
        ..plain
    };
    let wide = GuestConfig {
        more: &["--viommu", "intel,aw-bits=48"],
        ..config.clone()
    };
    let refused = lab.with_guest(&wide, |guest| guest.expect_end(1))?;
    for word in ["aw-bits=48", "39 bits"] {
        let said = refused.errors.trim_end();
        ensure!(said.contains(word), "It does not say `{word}`: {said}");
    }
    let own = GuestConfig {
        viommu: true,
        ..config
    };
    lab.with_guest(&own, |guest| {
        let answered = guest.expect("ping")?;
        ensure!(answered == "3", "{answered} of 3 pings were answered");
        lab.check_hash(&guest.expect("fetch")?)?;
        check_complaints(&guest.expect_list("dmar")?)?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// The refusal, and that what it names is true.
fn unsafe_interrupts(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = lab.config_with(&nic, "net,ping3");
    let refused = lab.with_guest(&config, |guest| guest.expect_end(1))?;
    for word in [NIC, "allow_unsafe_interrupts", "any interrupt"] {
        let said = refused.errors.trim_end();
        ensure!(said.contains(word), "It does not say `{word}`: {said}");
    }
    let switch = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    lab.agent.sh(&format!("echo Y > {switch}"))?;
    lab.with_guest(&config, |guest| {
        guest.expect("ping")?;
        guest.expect_power_off()
    })?;
    lab.agent.sh(&format!("echo N > {switch}"))?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn without_xsave(lab: &Context) -> Result<Verdict> {
    lab.agent.sh("! grep -qw xsave /proc/cpuinfo")?;
    lab.with_guest(&lab.config("ask"), |guest| {
        guest.expect("ask")?;
        guest.type_line("reboot")?;
        guest.expect("ask")?;
        guest.type_line("poweroff")?;
        guest.expect_power_off()
    })?;
    Ok(Verdict::Passed)
}

//! A guest that starts another kernel while its NIC and its IOMMU are in use.

use anyhow::{Result, ensure};

use super::viommu::check_complaints;
use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::guest::GuestConfig;

/// What the next kernel does.
const NEXT: &str = "dmar,net,ping3,fetch";

/// What a kernel says that takes over from a dead one (drivers/iommu/intel/iommu.c, irq_remapping.c).
const TAKEN_OVER: [&str; 3] = [
    "DMAR: Translation already enabled - trying to copy translation structures",
    "DMAR: Copied translation tables from previous kernel for dmar0",
    "DMAR-IR: Copied IR table for dmar0 from previous kernel",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "viommu-kexec",
            "a guest behind its IOMMU starts another kernel by kexec, which uses the NIC",
            300,
            kexec,
        )
        .full(),
        Scenario::new(
            "viommu-kdump",
            "a guest crashes with translation on and its NIC at work; the crash kernel takes both over",
            300,
            kdump,
        )
        .full(),
    ]
}

fn config(lab: &Context, device: &str, steps: &str, words: &str) -> GuestConfig {
    let plain = lab.config(steps);
    GuestConfig {
        initrd: "kexec",
        memory_mib: 1024,
        devices: vec![device.to_owned()],
        cmdline: format!("{} intel_iommu=on,strict lab.next={NEXT} {words}", plain.cmdline),
        viommu: true,
        ..plain
    }
}

fn kexec(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = config(lab, &nic.bdf, "net,ping3,hand_over", "");
    lab.with_guest(&config, |guest| {
        guest.expect("ping")?;
        guest.expect("leaves")?;
        let said = guest.expect_list("dmar")?;
        for words in TAKEN_OVER {
            let kept = said.iter().any(|line| line.contains(words));
            ensure!(!kept, "The IOMMU was on when the next kernel came: `{words}`");
        }
        works(lab, guest, &said)
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn kdump(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = config(lab, &nic.bdf, "net,ping3,crash", "crashkernel=256M");
    lab.with_guest(&config, |guest| {
        guest.expect("ping")?;
        guest.expect_panic()?;
        let said = guest.expect_list("dmar")?;
        for words in TAKEN_OVER {
            let kept = said.iter().any(|line| line.contains(words));
            ensure!(kept, "The crash kernel does not say `{words}`");
        }
        works(lab, guest, &said)
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// The next kernel has no complaint, and its NIC works.
fn works(lab: &Context, guest: &mut Guest<'_>, said: &[String]) -> Result<()> {
    check_complaints(said)?;
    let answered = guest.expect("ping")?;
    ensure!(answered == "3", "{answered} of 3 pings were answered");
    lab.check_hash(&guest.expect("fetch")?)?;
    guest.expect_power_off()?;
    Ok(())
}

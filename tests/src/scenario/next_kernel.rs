//! A guest that starts another kernel while its NIC and its IOMMU are in use.

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig, complaints};
use crate::lab::devices::NIC;

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

fn config(lab: &Lab<'_>, words: &str) -> Result<GuestConfig> {
    Ok(GuestConfig {
        initrd: "kexec",
        memory_mib: 1024,
        ..GuestConfig::with(&[&lab.take(NIC.at())?])
            .behind_iommu("intel_iommu=on,strict")
            .told(words)
    })
}

/// Loads the same kernel once more, in the way that `option` says. The rest of the command line stays, but for the
/// memory that is kept for a crash.
fn stage(guest: &mut Guest<'_>, option: &str) -> Result<()> {
    guest.sh(&format!(
        "kexec --kexec-file-syscall {option} --initrd=$(echo /lab/guest/initramfs-*) \
         --command-line=\"$(sed 's/crashkernel=[^ ]*//' /proc/cmdline)\" /lab/guest/vmlinuz-*"
    ))?;
    Ok(())
}

/// In good order: drivers shut their devices down, and the IOMMU is switched off.
fn kexec(lab: &Lab<'_>) -> Result<()> {
    lab.run(&config(lab, "")?, |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        stage(guest, "--load")?;
        guest.type_script("kexec --exec")?;
        guest.ready()?;
        let said = works(lab, guest)?;
        for words in TAKEN_OVER {
            let kept = said.iter().any(|line| line.contains(words));
            ensure!(!kept, "The IOMMU was on when the next kernel came: `{words}`");
        }
        Ok(())
    })
}

/// In none: the NIC and the IOMMU are at work, and the memory that they work on belongs to the dead kernel.
fn kdump(lab: &Lab<'_>) -> Result<()> {
    lab.run(&config(lab, "crashkernel=256M")?, |guest| {
        lab.eth0().up(guest, "igb")?;
        stage(guest, "--load-panic")?;
        guest.type_script("ping -i 1 10.0.2.2 > /dev/null & echo c > /proc/sysrq-trigger")?;
        guest.expect_panic()?;
        guest.ready()?;
        let said = works(lab, guest)?;
        for words in TAKEN_OVER {
            let kept = said.iter().any(|line| line.contains(words));
            ensure!(kept, "The crash kernel does not say `{words}`");
        }
        Ok(())
    })
}

/// The next kernel has no complaint, and its NIC works. Returns what it said of its IOMMU.
fn works(lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<Vec<String>> {
    let said = complaints(guest)?;
    lab.eth0().up(guest, "igb")?;
    lab.eth0().ping(guest)?;
    lab.eth0().fetch(guest)?;
    Ok(said)
}

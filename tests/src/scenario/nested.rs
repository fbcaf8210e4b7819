//! Nested passthrough: the guest (L1) gives the device that it was given to a guest of its own (L2). Both are typed
//! at on the same console: L2 stands in front of L1 for as long as its VMM runs.

use anyhow::{Result, bail, ensure};

use super::nic::PF_VECTORS;
use super::viommu::both;
use super::{Lab, Scenario};
use crate::guest::hypervisor::{give, inner, outer, take_back};
use crate::guest::{Guest, GuestConfig, Vmm, complaints, says};
use crate::lab::devices::{NIC, NVME};

pub(super) fn scenarios() -> Vec<Scenario> {
    let physical = |name, about, inner| {
        Scenario::new(name, about, 900, move |lab| {
            pass_on(lab, &lab.take(NIC.at())?, inner, "igb")
        })
    };
    let virtual_function = |name, about, inner| {
        Scenario::new(name, about, 900, move |lab| {
            pass_on(lab, &lab.take_virtual_function()?, inner, "igbvf")
        })
    };
    let about = |what| format!("{what} passed on by a guest: the inner guest pings, then the outer one");
    vec![
        physical("nested-strait", about("the NIC"), Vmm::Strait).with_strait_inside(),
        physical("nested-qemu", about("the NIC, with QEMU inside,"), Vmm::Qemu).full(),
        virtual_function("nested-vf", about("a virtual function"), Vmm::Strait).with_strait_inside(),
        virtual_function(
            "nested-vf-qemu",
            about("a virtual function, with QEMU inside,"),
            Vmm::Qemu,
        )
        .full(),
        Scenario::new(
            "nested-smp",
            "two CPUs in both guests: the inner one pings and fetches 32 MiB, then the outer one pings",
            900,
            several_cpus,
        )
        .with_strait_inside()
        .full(),
        Scenario::new(
            "nested-off",
            "--cpu host,nested=off: the guest sees neither SVM nor VMX",
            120,
            hidden,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "nested-no-remapping",
            "intremap=off: both VMMs say what it costs, the inner one refuses until the outer guest allows it",
            900,
            without_remapping,
        )
        .strait_only()
        .with_strait_inside()
        .full(),
        Scenario::new(
            "nested-recipe",
            "the recipe of the documentation, word for word: L1 and L2 built from the host, the NIC passed through both",
            900,
            recipe,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "nested-two-devices",
            "NIC and drive in one inner guest: pings, then data on both at once",
            900,
            two_devices,
        )
        .with_strait_inside()
        .full(),
    ]
}

/// The outer guest drives the NIC again, and its kernel had nothing to complain about.
pub(super) fn works_outside(lab: &Lab<'_>, guest: &mut Guest<'_>, expected: &str) -> Result<()> {
    take_back(guest, "01:00.0", expected)?;
    lab.eth0().up(guest, expected)?;
    lab.eth0().ping(guest)?;
    complaints(guest).map(drop)
}

fn pass_on(lab: &Lab<'_>, device: &str, vmm: Vmm, expected: &str) -> Result<()> {
    lab.run(&outer(&[device], vmm), |guest| {
        give(guest, expected, &["01:00.0"])?;
        guest.enter(&inner(&lab.boot, vmm, &["0000:01:00.0"], 1))?;
        guest.sh(&format!("load {expected}"))?;
        lab.eth0().up(guest, expected)?;
        lab.eth0().ping(guest)?;
        let vectors = lab.eth0().vectors(guest)?;
        // The mailbox of a virtual function stays silent.
        if expected == "igb" {
            lab.eth0().counted(guest, PF_VECTORS)?;
        }
        ensure!(!vectors.is_empty(), "The inner guest's NIC has no vectors");
        guest.leave()?;
        works_outside(lab, guest, expected)
    })
}

fn several_cpus(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        cpus: 2,
        ..outer(&[&lab.take(NIC.at())?], Vmm::Strait)
    };
    lab.run(&config, |guest| {
        give(guest, "igb", &["01:00.0"])?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 2))?;
        says(guest, "nproc", "2")?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        guest.leave()?;
        works_outside(lab, guest, "igb")
    })
}

/// That they are seen without the option is what the other scenarios live from.
fn hidden(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        more: &["--cpu", "host,nested=off"],
        ..GuestConfig::default()
    };
    lab.run(&config, |guest| {
        says(guest, "grep -cwE 'svm|vmx' /proc/cpuinfo || true", "0")
    })
}

/// The outer guest's kernel has no safe way to give a device away, and one line each says so.
fn without_remapping(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        viommu: false,
        more: &["--viommu", "intel,intremap=off"],
        ..outer(&[&lab.take(NIC.at())?], Vmm::Strait)
    };
    let finished = lab.start(&config, |guest| {
        guest.ready()?;
        give(guest, "igb", &["01:00.0"])?;
        let start = inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1);
        guest.type_script(&start)?;
        let (said, code) = guest.end_of(&start)?;
        ensure!(code == 1, "The inner VMM ended with code {code}, expected 1");
        let lines: Vec<_> = said.lines().collect();
        let [refusal] = lines[..] else {
            bail!("The inner strait says {lines:?}, not one line");
        };
        for word in ["0000:01:00.0", "allow_unsafe_interrupts=1", "any interrupt"] {
            ensure!(refusal.contains(word), "It does not say `{word}`: {refusal}");
        }
        guest.sh("echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")?;
        guest.enter(&start)?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        guest.leave()?;
        works_outside(lab, guest, "igb")?;
        guest.power_off()
    })?;
    let warning = "with intremap=off the guest can pass its devices on only if";
    ensure!(
        finished.errors.contains(warning),
        "The outer strait does not warn: {}",
        finished.errors
    );
    Ok(())
}

/// What resources/docs/nested.md says to type, without the shells at the end.
const RECIPE: &str = "cd /tmp && sh /lab/nested/build.sh 01:00.0 l1.img && strait host bind 01:00.0 && \
     strait run --kernel /boot/vmlinuz-$(uname -r) --initrd l1.img --memory 1G --device 01:00.0 --viommu intel \
     --cmdline 'console=ttyS0 panic=-1 quiet intel_iommu=on iommu=pt batch=1' < /dev/null; \
     strait host restore 01:00.0; rm -f l1.img";

fn recipe(lab: &Lab<'_>) -> Result<()> {
    let finished = lab.script(RECIPE)?;
    for words in ["L2: eth0 has 10.0.2.15", "3 packets received", "L1: L2 has ended"] {
        ensure!(
            finished.output.contains(words),
            "The recipe does not say `{words}`"
        );
    }
    Ok(())
}

fn two_devices(lab: &Lab<'_>) -> Result<()> {
    let (nic, drive) = (lab.take(NIC.at())?, lab.take(NVME.at())?);
    lab.run(&outer(&[&nic, &drive], Vmm::Strait), |guest| {
        give(guest, "igb nvme", &["01:00.0", "02:00.0"])?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0", "0000:02:00.0"], 1))?;
        guest.sh("load igb nvme")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        both(lab, guest, 16)?;
        guest.leave()
    })
}

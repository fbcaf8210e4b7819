//! Nested passthrough: the guest (L1) gives the device that it was given to a guest of its own (L2).

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::nic::PF_VECTORS;
use super::viommu::check_complaints;
use super::{Context, Scenario, Verdict};
use crate::agent::protocol::Finished;
use crate::guest::{Guest, INNER};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::{Assigned, NVME, pinned_pages};

/// What L1 does, see resources/lab/nested.sh: L2 runs, and then L1 drives the NIC itself.
const STEPS: &str = "hypervisor,give,inner,take_back,net,ping3,dmar";

/// What a shell says of a program that was killed.
const KILLED: &str = "137";

pub(super) fn scenarios() -> Vec<Scenario> {
    let physical = |name, about, inner| {
        Scenario::new(name, about, 900, move |lab| {
            let nic = lab.bind_nic()?;
            pass_on(lab, &nic, inner, "igb")?;
            nic.restore()?;
            Ok(Verdict::Passed)
        })
    };
    let virtual_function = |name, about, inner| {
        Scenario::new(name, about, 900, move |lab| {
            let nic = Assigned::bind_virtual_function(lab.agent)?;
            pass_on(lab, &nic, inner, "igbvf")?;
            nic.restore()?;
            Ok(Verdict::Passed)
        })
    };
    let about = |what| format!("{what} passed on by a guest: the inner guest pings, then the outer one");
    vec![
        physical("nested-strait", about("the NIC"), Vmm::Strait).with_strait_inside(),
        physical("nested-qemu", about("the NIC, with QEMU inside,"), Vmm::Qemu),
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
        .strait_only(),
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
        Scenario::new(
            "nested-rebind",
            "the guest moves the NIC between igb and vfio-pci a hundred times, then pings",
            1800,
            rebind,
        )
        .with_strait_inside()
        .full(),
        Scenario::new(
            "nested-reboot",
            "the outer guest reboots while data flows into the inner one, and starts it again",
            900,
            reboot,
        )
        .with_strait_inside()
        .full(),
        Scenario::new(
            "nested-kill",
            "the inner VMM is killed in the middle of traffic and started again, twice",
            900,
            kill,
        )
        .with_strait_inside()
        .full(),
    ]
}

/// An L1 that can be a hypervisor, with `inner` as its VMM, whose guest does `inner_steps`.
fn config(
    lab: &Context,
    devices: &[&Assigned<'_>],
    inner: Vmm,
    drivers: &str,
    steps: &str,
    inner_steps: &str,
) -> GuestConfig {
    let devices: Vec<String> = devices.iter().map(|device| device.bdf.clone()).collect();
    let passed: Vec<String> = (1..=devices.len()).map(|bus| format!("{bus:02x}:00.0")).collect();
    let plain = lab.config(steps);
    GuestConfig {
        initrd: match inner {
            Vmm::Strait => "nested",
            Vmm::Qemu => "nested-qemu",
        },
        memory_mib: 1024,
        viommu: true,
        cmdline: format!(
            "{} intel_iommu=on iommu=pt lab.drivers=kvm_amd,vfio_iommu_type1,vfio_pci,{drivers} lab.pass={} \
             lab.vmm={} lab.inner={inner_steps} lab.inner_drivers={drivers}",
            plain.cmdline,
            passed.join(","),
            inner.name()
        ),
        devices,
        ..plain
    }
}

fn pass_on(lab: &Context, device: &Assigned<'_>, inner: Vmm, driver: &str) -> Result<()> {
    let config = config(lab, &[device], inner, driver, STEPS, "net,ping3,irqs");
    lab.with_guest(&config, |guest| {
        given(guest)?;
        let found = guest.expect(&inner_word("driver"))?;
        ensure!(
            found == driver,
            "The inner guest drives the NIC by {found}, expected {driver}"
        );
        pinged(guest, INNER)?;
        let irqs = guest.expect_irqs_of(INNER)?;
        // The mailbox of a virtual function stays silent.
        if driver == "igb" {
            lab.check_irqs(&irqs, PF_VECTORS)?;
        }
        inner_exit(guest, "0")?;
        taken_back(guest, driver)?;
        Ok(())
    })
}

fn several_cpus(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let mut config = config(lab, &[&nic], Vmm::Strait, "igb", STEPS, "facts,net,ping3,fetch");
    config.cpus = 2;
    config.cmdline += " lab.inner_cpus=2";
    lab.with_guest(&config, |guest| {
        given(guest)?;
        let cpus = guest.expect(&inner_word("cpus"))?;
        ensure!(cpus == "2", "The inner guest has {cpus} CPUs");
        pinged(guest, INNER)?;
        lab.check_hash(&guest.expect(&inner_word("fetch"))?)?;
        inner_exit(guest, "0")?;
        taken_back(guest, "igb")
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// To the point where the outer guest has the device on vfio-pci.
fn given(guest: &mut Guest<'_>) -> Result<()> {
    let unsafe_interrupts = guest.expect("unsafe-interrupts")?;
    ensure!(
        unsafe_interrupts == "N",
        "The outer guest allows unsafe interrupts: {unsafe_interrupts}"
    );
    let bound = guest.expect("bound")?;
    ensure!(bound == "vfio-pci", "The outer guest bound the device to {bound}");
    Ok(())
}

/// The outer guest drives the NIC itself, and its kernel had nothing to complain about.
fn taken_back(guest: &mut Guest<'_>, driver: &str) -> Result<Finished> {
    let restored = guest.expect("restored")?;
    ensure!(
        restored == driver,
        "The outer guest gave the device to {restored}, expected {driver}"
    );
    pinged(guest, "")?;
    check_complaints(&guest.expect_list("dmar")?)?;
    guest.expect_power_off()
}

fn pinged(guest: &mut Guest<'_>, whose: &str) -> Result<()> {
    let answered = guest.expect(&format!("{whose}ping"))?;
    ensure!(answered == "3", "{answered} of 3 pings were answered");
    Ok(())
}

fn inner_word(word: &str) -> String {
    format!("{INNER}{word}")
}

fn inner_exit(guest: &mut Guest<'_>, expected: &str) -> Result<()> {
    let code = guest.expect(&inner_word("exit"))?;
    ensure!(
        code == expected,
        "The inner VMM ended with code {code}, expected {expected}"
    );
    Ok(())
}

/// That they are seen without the option is what the other scenarios live from.
fn hidden(lab: &Context) -> Result<Verdict> {
    let config = GuestConfig {
        more: &["--cpu", "host,nested=off"],
        ..lab.config("nesting")
    };
    lab.with_guest(&config, |guest| {
        let seen = guest.expect("nesting")?;
        ensure!(seen == "0", "{seen} CPUs of the guest have SVM or VMX");
        guest.expect_power_off()
    })?;
    Ok(Verdict::Passed)
}

/// The outer guest's kernel has no safe way to give a device away, and one line each says so.
fn without_remapping(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let steps = "hypervisor,give,inner,allow_unsafe,inner,take_back,net,ping3,dmar";
    let config = GuestConfig {
        viommu: false,
        more: &["--viommu", "intel,intremap=off"],
        ..config(lab, &[&nic], Vmm::Strait, "igb", steps, "net,ping3")
    };
    let finished = lab.with_guest(&config, |guest| {
        given(guest)?;
        inner_exit(guest, "1")?;
        let said = guest.transcript();
        let refusals: Vec<_> = said.lines().filter(|line| line.starts_with("L2 ")).collect();
        let [refusal] = refusals[..] else {
            bail!("The inner strait says {refusals:?}, not one line");
        };
        for word in ["0000:01:00.0", "allow_unsafe_interrupts=1", "any interrupt"] {
            ensure!(refusal.contains(word), "It does not say `{word}`: {refusal}");
        }
        pinged(guest, INNER)?;
        inner_exit(guest, "0")?;
        taken_back(guest, "igb")
    })?;
    let warning = "with intremap=off the guest can pass its devices on only if";
    ensure!(
        finished.errors.contains(warning),
        "The outer strait does not warn: {}",
        finished.errors
    );
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// What resources/docs/nested.md says to type, without the shells at the end.
const RECIPE: &str = "cd /tmp && sh /lab/nested/build.sh 01:00.0 l1.img && strait host bind 01:00.0 && \
     strait run --kernel /boot/vmlinuz-$(uname -r) --initrd l1.img --memory 1G --device 01:00.0 --viommu intel \
     --cmdline 'console=ttyS0 panic=-1 quiet intel_iommu=on iommu=pt batch=1' < /dev/null; \
     strait host restore 01:00.0; rm -f l1.img";

fn recipe(lab: &Context) -> Result<Verdict> {
    let left = lab.deadline.saturating_duration_since(Instant::now());
    let finished = lab.agent.exec(RECIPE, left)?;
    let text = format!("{}\n--- standard error ---\n{}", finished.output, finished.errors);
    lab.logs.append(&format!("{}.log", lab.name), &text);
    for words in ["L2: eth0 has 10.0.2.15", "3 packets received", "L1: L2 has ended"] {
        ensure!(
            finished.output.contains(words),
            "The recipe does not say `{words}`"
        );
    }
    Ok(Verdict::Passed)
}

fn two_devices(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let drive = Assigned::bind(lab.agent, NVME)?;
    let mut config = config(
        lab,
        &[&nic, &drive],
        Vmm::Strait,
        "igb,nvme",
        "hypervisor,give,inner",
        "net,ping3,both",
    );
    config.cmdline += " lab.drive=16";
    lab.with_guest(&config, |guest| {
        given(guest)?;
        pinged(guest, INNER)?;
        both(lab, guest, INNER)?;
        inner_exit(guest, "0")?;
        guest.expect_power_off()
    })?;
    drive.restore()?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// What the step `both` prints, in whatever order NIC and drive are done.
pub(super) fn both(lab: &Context, guest: &mut Guest<'_>, whose: &str) -> Result<()> {
    let words = ["fetch", "wrote", "read"].map(|word| format!("{whose}{word}"));
    let [fetched, wrote, read] = guest.expect_each(&words)?;
    lab.check_hash(&fetched)?;
    ensure!(
        wrote == read,
        "What was written with SHA-256 {wrote} came back with {read}"
    );
    Ok(())
}

fn rebind(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    // Bound to vfio-pci and not open, the device reaches nothing: what is pinned before is pinned after.
    let steps = "hypervisor,give,ask,take_back,rebind,give,ask,take_back,net,ping3,dmar";
    let mut config = config(lab, &[&nic], Vmm::Strait, "igb", steps, "");
    config.cmdline = config.cmdline.replace(" iommu=pt", "");
    lab.with_guest(&config, |guest| {
        given(guest)?;
        let before = pinned_when_asked(lab, guest)?;
        let rounds = guest.expect("rounds")?;
        ensure!(rounds == "100", "The guest did {rounds} rounds");
        let after = pinned_when_asked(lab, guest)?;
        ensure!(
            after <= before,
            "{after} pages are pinned after 100 rounds, before {before}"
        );
        taken_back(guest, "igb")
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn pinned_when_asked(lab: &Context, guest: &mut Guest<'_>) -> Result<i64> {
    guest.expect("ask")?;
    let pages = pinned_pages(lab.agent)?;
    guest.type_line("go")?;
    Ok(pages)
}

fn reboot(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let steps = "hypervisor,give,inner_behind,ask";
    let config = config(lab, &[&nic], Vmm::Strait, "igb", steps, "net,flood");
    lab.with_guest(&config, |guest| {
        for order in ["reboot", "poweroff"] {
            given(guest).with_context(|| format!("Before the outer guest's {order}"))?;
            guest.expect("ask")?;
            guest.expect(&inner_word("flowing"))?;
            guest.type_line(order)?;
        }
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn kill(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let steps = "hypervisor,give,inner_behind,kill_inner,inner_behind,kill_inner,take_back,net,ping3,dmar";
    let config = config(lab, &[&nic], Vmm::Strait, "igb", steps, "net,flood");
    lab.with_guest(&config, |guest| {
        given(guest)?;
        for _ in 0..2 {
            guest.expect(&inner_word("flowing"))?;
            inner_exit(guest, KILLED)?;
        }
        taken_back(guest, "igb")
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

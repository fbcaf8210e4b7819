//! Devices that come to a running guest, and leave it, by the control socket.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::control::{SOCKET, ask, with_socket};
use super::{Lab, Scenario};
use crate::guest::hypervisor::{give, inner, outer};
use crate::guest::{Guest, GuestConfig, Vmm, kept};
use crate::lab::devices::{E1000E, NIC, NVME};
use crate::lab::pinned_pages;

/// What a client waits for when it has asked for a device.
pub(super) const DELETED: &str = "event:DEVICE_DELETED";

/// How often a device comes and goes: a few times, and with `--full` many.
const FEW: u32 = 3;
const MANY: u32 = 100;

/// The guest has longer than the VMM waits for it.
const PATIENCE: Duration = Duration::from_secs(35);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "hotplug",
            "a virtual function comes, pings, goes and comes again: nothing is left of it",
            400,
            |lab| over_and_over(lab, FEW),
        ),
        Scenario::new(
            "hotplug-reset",
            "a device that comes is reset once on its way, and once when it goes",
            240,
            reset_once,
        )
        .strait_only(),
        Scenario::new("hotplug-100", "the same a hundred times", 3600, |lab| over_and_over(lab, MANY)).full(),
        Scenario::new(
            "hotplug-two",
            "a NIC and a drive asked for at once, both at work, over a reboot; then both leave during traffic",
            400,
            two,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "hotplug-viommu",
            "a guest with an IOMMU gets a NIC while it runs, and passes it on to a guest of its own",
            900,
            pass_on,
        )
        .strait_only()
        .with_strait_inside()
        .full(),
        Scenario::new(
            "hotplug-ctl",
            "`strait ctl` brings a NIC of vfio-pci's and a drive of the host's, both functions of a NIC together, and takes them away",
            300,
            by_ctl,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "hotplug-refused",
            "what cannot come or go is refused with the reason, the guest sees nothing, and what leaves may come again at once",
            240,
            refused,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "hotplug-deaf",
            "a guest without a driver of slots, one that has not booted, one that stands still, and force",
            400,
            deaf,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "hotplug-gone",
            "a virtual function that came is taken away on the host, a VMM is killed with one on its way and one there",
            400,
            gone,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "hotplug-between",
            "a device comes and goes while the guest is reset, paused, or has not let go of it; kill -9 in each state",
            600,
            between,
        )
        .strait_only()
        .full(),
    ]
}

/// The command that adds a device, for either VMM.
pub(super) fn add(lab: &Lab<'_>, bdf: &str, id: &str) -> String {
    json!({"execute": "device_add", "arguments": arguments(lab, bdf, id)}).to_string()
}

/// What it is told.
pub(super) fn arguments(lab: &Lab<'_>, bdf: &str, id: &str) -> Value {
    let mut arguments = json!({"driver": "vfio-pci", "host": bdf, "id": id});
    if lab.vmm == Vmm::Qemu {
        arguments["bus"] = "slot0".into();
        arguments["rombar"] = 0.into();
    }
    arguments
}

fn delete(id: &str) -> String {
    json!({"execute": "device_del", "arguments": {"id": id}}).to_string()
}

pub(super) fn pull(id: &str) -> String {
    json!({"execute": "device_del", "arguments": {"id": id, "force": true}}).to_string()
}

fn guest(slots: u32) -> GuestConfig {
    with_socket(GuestConfig {
        slots,
        ..GuestConfig::default()
    })
}

/// What a guest's VMM has in use that must not grow.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    files: String,
    mappings: String,
    threads: String,
    pinned: i64,
}

fn held(lab: &Lab<'_>, guest: &Guest<'_>) -> Result<Held> {
    let count = |what: &str| {
        let counted = lab.agent.sh(&format!("ls /proc/{}/{what} | wc -l", guest.pid))?;
        Ok::<String, anyhow::Error>(counted.trim().to_owned())
    };
    // Each CPU keeps some of the count to itself for a while (Documentation/admin-guide/sysctl/vm.rst).
    lab.agent.sh("echo 1 > /proc/sys/vm/stat_refresh")?;
    Ok(Held {
        files: count("fd")?,
        mappings: count("map_files")?,
        threads: count("task")?,
        pinned: pinned_pages(lab.agent)?,
    })
}

/// What is left after the second time is what was left after the first: allocators keep some of what they had.
fn over_and_over(lab: &Lab<'_>, times: u32) -> Result<()> {
    let nic = lab.take_virtual_function()?;
    lab.run(&guest(1), |guest| {
        let unpinned = pinned_pages(lab.agent)?;
        let mut first = None;
        for time in 1..=times {
            let context = || format!("Time {time}");
            ask(lab, &[&add(lab, &nic, "nic")]).with_context(context)?;
            lab.eth0().up(guest, "igbvf").with_context(context)?;
            lab.eth0().ping(guest).with_context(context)?;
            ask(lab, &[&delete("nic"), DELETED]).with_context(context)?;
            let now = held(lab, guest)?;
            let before = first.get_or_insert_with(|| held(lab, guest));
            let before = before.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
            ensure!(now == *before, "Time {time}: {now:?}, and {before:?} after the first");
        }
        let pinned = pinned_pages(lab.agent)?;
        ensure!(
            pinned - unpinned < 512,
            "{pinned} pages are pinned without a device, {unpinned} before it came"
        );
        let complaints = guest.sh("dmesg | grep -iE 'pciehp.*(fail|cannot|timeout)|broken' || true")?;
        ensure!(complaints.is_empty(), "The guest's kernel says {complaints}");
        Ok(())
    })
}

/// Where the host's kernel tells of each function-level reset.
const RESETS: &str = "/sys/kernel/tracing/events/kprobes/function_reset";

/// Resets since the last look.
fn resets(lab: &Lab<'_>) -> Result<usize> {
    let seen = lab.agent.sh("cd /sys/kernel/tracing; grep -c function_reset: trace || true; echo > trace")?;
    seen.trim().parse().with_context(|| format!("The trace has {seen} resets"))
}

fn reset_once(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take_virtual_function()?;
    let begin = "echo 'p:function_reset pcie_flr' >> /sys/kernel/tracing/kprobe_events";
    lab.agent.sh(&format!("{begin} && echo 1 > {RESETS}/enable"))?;
    let counted = lab.run(&guest(1), |guest| {
        let mut counted = Vec::new();
        for _ in 0..2 {
            resets(lab)?;
            ask(lab, &[&add(lab, &nic, "nic")])?;
            lab.eth0().up(guest, "igbvf")?;
            counted.push(resets(lab)?);
            ask(lab, &[&delete("nic"), DELETED])?;
            counted.push(resets(lab)?);
        }
        Ok(counted)
    });
    let end = "echo '-:function_reset' >> /sys/kernel/tracing/kprobe_events";
    lab.agent.sh(&format!("echo 0 > {RESETS}/enable; {end}"))?;
    let counted = counted?;
    ensure!(counted == [1; 4], "Coming and going twice, the device was reset {counted:?} times");
    Ok(())
}

fn two(lab: &Lab<'_>) -> Result<()> {
    let (nic, drive) = (lab.take(NIC.at())?, NVME.at());
    let managed = json!({
        "execute": "device_add",
        "arguments": {"driver": "vfio-pci", "host": drive, "id": "drive", "managed": true},
    });
    let config = GuestConfig {
        initrd: "devices",
        ..guest(2)
    };
    lab.start(&config, |guest| {
        guest.ready()?;
        let at_once = format!(
            "lab qmp {SOCKET} '{}' > /run/lab/first & lab qmp {SOCKET} '{managed}'; wait; cat /run/lab/first",
            add(lab, &nic, "nic")
        );
        let said = lab.agent.sh(&at_once)?;
        ensure!(said.matches("\"heard\":true").count() == 2, "The VMM says {said}");
        let work = |guest: &mut Guest<'_>| -> Result<()> {
            guest.sh("load igb nvme")?;
            lab.eth0().up(guest, "igb")?;
            lab.eth0().ping(guest)?;
            lab.eth0().fetch(guest)?;
            kept(guest, "/dev/nvme0n1", 8)
        };
        work(guest)?;
        guest.reboot()?;
        work(guest).context("After a reboot")?;
        lab.eth0().flood(guest)?;
        ask(lab, &[&delete("nic"), &delete("drive"), DELETED, DELETED])?;
        let driver = lab.agent.sh(&format!("basename $(readlink /sys/bus/pci/devices/{drive}/driver)"))?;
        ensure!(driver.trim() == "nvme", "The host's drive went to {driver}");
        guest.sh("killall wget || true; [ ! -e /sys/class/net/eth0 ] && [ ! -e /dev/nvme0n1 ]")?;
        guest.power_off().map(drop)
    })
}

fn pass_on(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let config = GuestConfig {
        slots: 1,
        ..with_socket(outer(&[], Vmm::Strait))
    };
    lab.run(&config, |guest| {
        guest.sh("load igb")?;
        let said = ask(lab, &[&add(lab, &nic, "nic")])?;
        ensure!(said.contains("0000:01:00.0"), "The VMM says {said}");
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        guest.sh("ip addr flush dev eth0; ip link set eth0 down")?;
        give(guest, "igb", &["01:00.0"])?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        guest.leave()?;
        ask(lab, &[&delete("nic"), DELETED])?;
        ask(lab, &[&add(lab, &nic, "nic")]).context("Again")?;
        guest.sh("wait_until 20 test -e /sys/bus/pci/devices/0000:01:00.0")?;
        Ok(())
    })
}

fn by_ctl(lab: &Lab<'_>) -> Result<()> {
    let (nic, drive) = (lab.take(NIC.at())?, NVME.at());
    let [first, second] = E1000E.functions else {
        anyhow::bail!("{:?} are not two functions", E1000E.functions);
    };
    let config = GuestConfig {
        initrd: "devices",
        slots: 2,
        more: &["--name", "web"],
        ..GuestConfig::default()
    };
    let ctl = |words: &str| lab.agent.sh(&format!("strait ctl {words}"));
    lab.run(&config, |guest| {
        ctl(&format!("attach {nic},id=nic"))?;
        ctl(&format!("attach {drive},id=drive,managed=on"))?;
        guest.sh("load igb nvme")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        kept(guest, "/dev/nvme0n1", 8)?;
        let info = ctl("info")?;
        ensure!(info.contains(&nic) && info.contains(drive), "The guest has {info}");
        ctl("detach drive --wait 60s")?;
        ctl("web detach nic --force")?;
        let together = json!({
            "execute": "device_add",
            "arguments": {"driver": "vfio-pci", "host": first, "with": second, "id": "pair", "managed": true},
        });
        lab.agent.sh(&format!("lab qmp /run/strait/web.sock '{together}'"))?;
        guest.sh("load e1000e; wait_until 30 test -e /sys/class/net/eth1")?;
        ctl("detach pair --wait 60s").map(drop)
    })
}

fn refused(lab: &Lab<'_>) -> Result<()> {
    let (nic, other) = (lab.take(NIC.at())?, lab.take(E1000E.at())?);
    let says = |words: &[&str], said: &str| -> Result<()> {
        let refusal = ask(lab, words)?;
        ensure!(refusal.contains(said), "{words:?} is refused with {refusal}, not with {said:?}");
        Ok(())
    };
    let not = |command: String| format!("!{command}");
    lab.run(&guest(1), |guest| {
        let before = guest.sh("dmesg | grep -c pciehp")?;
        says(&[&not(add(lab, NVME.at(), "drive"))], "vfio-pci")?;
        says(&[&not(add(lab, "0000:7f:00.0", "none"))], "0000:7f:00.0")?;
        says(&[&not(add(lab, &other, "half"))], "group")?;
        says(&[&not(delete("nic"))], "DeviceNotFound")?;
        ensure!(guest.sh("dmesg | grep -c pciehp")? == before, "The guest saw something");
        // As at a start, it is told of beforehand that not all vectors will find room.
        let open = lab.agent.sh(&format!("ls /proc/{}/fd | wc -l", guest.pid))?;
        let few = open.trim().parse::<u32>().context("A number of open files")? + 12;
        let allow = |files| lab.agent.sh(&format!("prlimit --pid {} --nofile={files}", guest.pid));
        allow(few)?;
        ask(lab, &[&add(lab, &nic, "nic"), &pull("nic"), DELETED])?;
        let errors = guest.errors();
        ensure!(errors.contains(&format!("and {few} are allowed")), "The VMM says {errors}");
        allow(1024)?;
        ask(lab, &[&add(lab, &nic, "nic")])?;
        says(&[&not(add(lab, &nic, "again"))], "in the guest already")?;
        says(&[&not(add(lab, &other, "nic"))], "the id")?;
        says(&[&not(add(lab, NVME.at(), "drive"))], "slots of the guest are taken")?;
        lab.eth0().up(guest, "igb")?;
        let twice = [&delete("nic"), &not(delete("nic")), DELETED].map(String::from);
        says(&twice.each_ref().map(String::as_str), "asked for")?;
        ask(lab, &[&add(lab, &nic, "nic"), &pull("nic"), DELETED])?;
        ask(lab, &[&add(lab, &nic, "nic")])?;
        lab.eth0().up(guest, "igb")?;
        // The guest is not done with the slot when it comes again.
        ask(lab, &[&delete("nic"), DELETED, &add(lab, &nic, "nic")])?;
        lab.eth0().up(guest, "igb").context("It came again at once")?;
        lab.eth0().ping(guest)
    })?;
    lab.run(&guest(0), |_| says(&[&not(add(lab, &nic, "nic"))], "--hotplug-slots"))
}

fn deaf(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let add = add(lab, &nic, "nic");
    lab.run(&guest(1).told("pcie_ports=compat"), |_| {
        let said = ask(lab, &[&add, &delete("nic"), DELETED])?;
        ensure!(said.contains("\"heard\":false"), "The VMM says {said}");
        Ok(())
    })?;
    lab.start(&guest(1), |guest| {
        wait_for_socket(lab)?;
        ask(lab, &[&add, &delete("nic"), DELETED, &add]).context("Before the guest has booted")?;
        guest.ready()?;
        lab.eth0().up(guest, "igb").context("It came before the guest had booted")?;
        ask(lab, &["stop", &delete("nic")])?;
        sleep(PATIENCE);
        ask(lab, &["query-status"]).context("The guest stands still")?;
        let errors = guest.errors();
        ensure!(errors.contains("keeps it"), "The VMM says {errors}");
        ask(lab, &["cont"])?;
        sleep(Duration::from_secs(10));
        ask(lab, &[&pull("nic"), DELETED])?;
        ask(lab, &[&add])?;
        lab.eth0().up(guest, "igb").context("After it was pulled")?;
        lab.eth0().ping(guest)?;
        guest.power_off().map(drop)
    })
}

fn wait_for_socket(lab: &Lab<'_>) -> Result<()> {
    let wait = format!("for i in $(seq 300); do [ -S {SOCKET} ] && exit 0; sleep 0.1; done; exit 1");
    lab.agent.sh(&wait).map(drop).context("The VMM does not listen")
}

fn gone(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take_virtual_function()?;
    let add = add(lab, &nic, "nic");
    lab.start(&guest(1), |guest| {
        guest.ready()?;
        ask(lab, &[&add])?;
        lab.eth0().up(guest, "igbvf")?;
        lab.agent.sh(&format!("echo {nic} > /sys/bus/pci/drivers/vfio-pci/unbind"))?;
        guest.sh("wait_until 20 test ! -e /sys/class/net/eth0")?;
        lab.agent.sh(&format!("echo {nic} > /sys/bus/pci/drivers/vfio-pci/bind"))?;
        ask(lab, &[&add]).context("After the host had taken it away")?;
        lab.eth0().up(guest, "igbvf")?;
        guest.kill()
    })?;
    lab.start(&guest(1), |guest| {
        guest.ready()?;
        lab.agent.sh(&format!("lab qmp {SOCKET} '{add}' > /dev/null 2>&1 &"))?;
        guest.kill()
    })?;
    lab.run(&guest(1), |guest| {
        let said: Value = serde_json::from_str(ask(lab, &[&add])?.trim()).context("An answer")?;
        ensure!(said["id"] == "nic", "The VMM says {said}");
        lab.eth0().up(guest, "igbvf")?;
        lab.eth0().ping(guest)
    })
}

fn between(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let add = add(lab, &nic, "nic");
    let works = |guest: &mut Guest<'_>, when: &'static str| -> Result<()> {
        lab.eth0().up(guest, "igb").context(when)?;
        lab.eth0().ping(guest).context(when)
    };
    let from_the_start = GuestConfig {
        devices: vec![nic.clone()],
        ..guest(1)
    };
    lab.start(&from_the_start, |guest| {
        guest.ready()?;
        works(guest, "It was there at the start")?;
        ask(lab, &[&delete(&nic), DELETED])?;
        guest.sh("[ ! -e /sys/class/net/eth0 ]")?;
        ask(lab, &[&add, "system_reset"]).context("It comes while the guest is reset")?;
        guest.ready()?;
        works(guest, "It came while the guest was reset")?;
        ask(lab, &[&delete("nic"), "system_reset", DELETED]).context("A reset before the guest let go of it")?;
        guest.ready()?;
        ask(lab, &["stop", &add, "cont"]).context("It comes to a guest that stands still")?;
        works(guest, "It came while the guest stood still")?;
        ask(lab, &["stop", &pull("nic"), DELETED, "system_reset", "cont"])?;
        guest.ready()?;
        ask(lab, &[&add])?;
        works(guest, "It was pulled out of a guest that stood still and was reset")?;
        guest.power_off().map(drop)
    })?;
    for (state, words) in [
        ("paused", vec!["stop"]),
        ("asked for its device", vec![&*delete("nic")]),
        ("about to lose its device", vec![&*pull("nic")]),
        ("being reset", vec!["system_reset"]),
    ] {
        lab.start(&guest(1), |guest| {
            guest.ready()?;
            ask(lab, &[&add])?;
            lab.eth0().up(guest, "igb")?;
            ask(lab, &words)?;
            guest.kill()
        })
        .with_context(|| format!("A guest is {state}, and its VMM killed"))?;
    }
    lab.run(&guest(1), |guest| {
        ask(lab, &[&add])?;
        works(guest, "Behind four killed VMMs")
    })
}

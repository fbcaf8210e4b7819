//! The guest's kernel under gdb: stock gdb on the lab host, at strait's stub or at QEMU's.
//!
//! What stops a guest by itself is not tried here: the emulated VMRUN loads DR7 and does not bring it into effect, and
//! the emulated INT3 looks at the intercept of INT n alone (QEMU, target/i386/tcg: `helper_vmrun`, `raise_interrupt2`).
//! `intel_gdb.rs` tries that on an emulated Intel CPU, and the process tests of `vmm/tests/gdb.rs` where there is a KVM.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::control::{ask, with_socket};
use super::device_leaves::gone;
use super::hotplug::{DELETED, add, pull};
use super::{Lab, Scenario};
use crate::agent::protocol::Finished;
use crate::guest::gdb_session::{SOCKET, SYMBOLS, command, symbols};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::devices::NIC;

/// A file that a script makes when it lets the guest go on.
const MARK: &str = "/run/gdb-goes";

/// Functions of the kernel that a guest without modules has.
const NAMES: &str = "__x64_sys_getpid|ksys_read|jiffies";

/// A host may ask for a device of a guest that stands still; after half a minute it gets it.
const UNBIND_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb",
            "a guest with a NIC waits for gdb, which steps, looks, and sets a thousand breakpoints and takes them out",
            300,
            |lab| stops(lab, 1),
        )
        .with_strait_inside(),
        Scenario::new("gdb-smp", "the same with two CPUs", 600, |lab| stops(lab, 2))
            .with_strait_inside()
            .full(),
        Scenario::new(
            "gdb-reboot",
            "gdb stays at a guest that reboots",
            300,
            reboot,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "gdb-killed",
            "gdb is killed while the guest stands still with data on their way: it goes on",
            240,
            killed,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "gdb-unbind",
            "the host takes a NIC back from a guest that gdb holds",
            300,
            unbind,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "gdb-hotplug",
            "a NIC comes to a guest that gdb holds, and is pulled from it: gdb is shown what there is now",
            300,
            hotplug,
        )
        .strait_only()
        .full(),
    ]
}

/// Addresses are as the kernel was linked.
fn config(devices: &[&str]) -> GuestConfig {
    GuestConfig {
        gdb: Some(SOCKET),
        ..GuestConfig::with(devices).told("nokaslr")
    }
}

/// What gdb prints that executes a script.
pub(super) fn gdb(lab: &Lab<'_>, script: &str) -> Result<String> {
    execute(lab, &command(script))
}

/// What gdb prints by this command of the shell.
pub(super) fn execute(lab: &Lab<'_>, command: &str) -> Result<String> {
    let left = lab.deadline.saturating_duration_since(Instant::now());
    let Finished {
        code,
        output,
        errors,
        ..
    } = lab.agent.exec(command, left)?;
    lab.log(&format!("{command}\n--- gdb ---\n{output}\n{errors}"));
    ensure!(code == 0, "gdb ended with code {code}: {errors}");
    // What `monitor` prints comes on standard error.
    Ok(output + &errors)
}

pub(super) fn says(output: &str, words: &str) -> Result<()> {
    ensure!(output.contains(words), "gdb does not say `{words}`");
    Ok(())
}

/// Starts gdb beside the guest, and waits until it lets the guest go on for the first time: what is typed then waits
/// until it has.
pub(super) fn gdb_beside(lab: &Lab<'_>, script: &str) -> Result<()> {
    start_beside(lab, &command(&marked(script, "continue")))
}

/// A script that makes the mark when it comes to this command.
pub(super) fn marked(script: &str, command: &str) -> String {
    script.replacen(command, &format!("shell touch {MARK}\n{command}"), 1)
}

/// Starts gdb beside the guest by this command of the shell, and waits until its script makes the mark.
pub(super) fn start_beside(lab: &Lab<'_>, typed: &str) -> Result<()> {
    lab.agent.sh(&format!("rm -f {MARK}"))?;
    lab.agent
        .start("gdb", ["bash", "-c", typed].map(str::to_owned).to_vec())?;
    let left = lab.deadline.saturating_duration_since(Instant::now());
    lab.agent
        .exec(&format!("until [ -e {MARK} ]; do sleep 0.1; done"), left)?;
    Ok(())
}

/// What the gdb beside the guest has printed at its end.
pub(super) fn gdb_ends(lab: &Lab<'_>) -> Result<String> {
    let left = lab.deadline.saturating_duration_since(Instant::now());
    let finished = lab.agent.wait("gdb", left)?;
    let said = lab.agent.sh("cat /run/lab/gdb.out")?;
    lab.log(&format!("--- gdb ---\n{said}\n{}", finished.errors));
    ensure!(finished.code == 0, "gdb ended with code {}", finished.code);
    // What `monitor` prints comes on standard error.
    Ok(said + &finished.errors)
}

/// A thousand places in the kernel, put in and taken out while the guest stands still.
const THOUSAND: &str = "set breakpoint always-inserted on\nset $n = 0\nwhile $n < 1000\n  \
     break *(0xffffffff81000000 + 64 * $n)\n  set $n = $n + 1\nend\ndelete\n";

fn stops(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    let config = GuestConfig {
        cpus,
        waits_for_gdb: true,
        ..config(&[&lab.take(NIC.at())?])
    };
    lab.start(&config, |guest| {
        lab.agent.sh(&format!(": > {SYMBOLS}"))?;
        let said = gdb(
            lab,
            "info registers rip cr0\nstepi\nstepi\ninfo registers rip\ninfo threads\ndetach\n",
        )?;
        let threads = said.lines().filter(|line| line.contains("Thread 1.")).count();
        ensure!(
            threads == cpus as usize,
            "gdb sees {threads} threads of {cpus} CPUs"
        );
        let rips: Vec<&str> = said.lines().filter(|line| line.starts_with("rip ")).collect();
        ensure!(
            rips.len() == 2 && rips[0] != rips[1],
            "Two steps lead nowhere: {rips:?}"
        );
        guest.ready()?;
        symbols(lab.agent, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        let look = "x/1i ksys_read\np *(long *) &jiffies\nstepi 50\np/x $cr3\nmonitor info devices\n";
        let first = gdb(lab, &format!("{look}{THOUSAND}x/1i ksys_read\ndetach\n"))?;
        says(&first, "<ksys_read>:")?;
        says(&first, "Breakpoint 1000 at")?;
        if lab.vmm == Vmm::Strait {
            says(&first, "behind root port 1")?;
        }
        let instructions: Vec<&str> = first.lines().filter(|line| line.contains("<ksys_read>:")).collect();
        ensure!(
            instructions.len() == 2 && instructions[0] == instructions[1],
            "A breakpoint is left: {instructions:?}"
        );
        lab.eth0().ping(guest)?;
        let second = gdb(lab, "p *(long *) &jiffies\ndetach\n")?;
        ensure!(jiffies(&second)? > jiffies(&first)?, "The guest's time stands still");
        lab.eth0().fetch(guest)?;
        guest.power_off().map(drop)
    })
}

/// The first number that gdb prints: `$1 = 4294894072`.
fn jiffies(said: &str) -> Result<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("$1 = "));
    Ok(line.context("gdb prints no number")?.parse()?)
}

/// It is interrupted, as by Ctrl-C, once the guest has started again.
fn reboot(lab: &Lab<'_>) -> Result<()> {
    lab.run(&config(&[&lab.take(NIC.at())?]), |guest| {
        symbols(lab.agent, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        gdb_beside(lab, "continue\ninfo threads\nx/1i ksys_read\ndetach\n")?;
        guest.reboot()?;
        lab.agent.sh("pkill -INT -x gdb")?;
        says(&gdb_ends(lab)?, "<ksys_read>:")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

fn killed(lab: &Lab<'_>) -> Result<()> {
    lab.run(&config(&[&lab.take(NIC.at())?]), |guest| {
        symbols(lab.agent, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        let said = gdb(lab, "info threads\nstepi 10\nshell kill -9 $PPID\n");
        ensure!(said.is_err(), "gdb was not killed");
        guest.sh("kill $(pidof wget)")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)
    })
}

fn unbind(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    lab.run(&config(&[&nic]), |guest| {
        symbols(lab.agent, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        start_beside(lab, &command(&marked("shell sleep 600\n", "shell")))?;
        let script = format!("echo {nic} > /sys/bus/pci/devices/{nic}/driver/unbind");
        let unbound = lab
            .agent
            .exec(&script, lab.host.pace.stretch(UNBIND_LIMIT))?;
        ensure!(unbound.code == 0, "The host cannot unbind the NIC: {}", unbound.errors);
        lab.agent.sh("pkill -9 gdb")?;
        gone(guest)
    })
}

fn hotplug(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let config = with_socket(GuestConfig {
        slots: 1,
        ..config(&[])
    });
    // gdb looks when it is its turn.
    let look = |turn: &str| {
        format!(
            "shell until [ -e /run/{turn} ]; do sleep 0.1; done\n\
             monitor info devices\nmonitor info pci\nshell touch /run/{turn}-seen\n"
        )
    };
    let turn = |turn: &str| {
        let script = format!("touch /run/{turn}; until [ -e /run/{turn}-seen ]; do sleep 0.1; done");
        lab.agent.sh(&script)
    };
    let script = format!("info threads\n{}{}{}detach\n", look("none"), look("come"), look("gone"));
    lab.run(&config, |guest| {
        symbols(lab.agent, guest, NAMES)?;
        lab.agent.sh("rm -f /run/none* /run/come* /run/gone*")?;
        start_beside(lab, &command(&marked(&script, "info")))?;
        turn("none")?;
        ask(lab, &[&add(lab, &nic, "nic")])?;
        turn("come")?;
        ask(lab, &[&pull("nic"), DELETED])?;
        turn("gone")?;
        let said = gdb_ends(lab)?;
        let shown: Vec<&str> = said.lines().filter(|line| is_of_devices(line)).collect();
        ensure!(
            shown.len() == 3 && shown[0] == shown[2] && shown[1].contains(&nic),
            "gdb was shown {shown:?}"
        );
        ask(lab, &[&add(lab, &nic, "nic")])?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

/// A line of `monitor info devices`.
fn is_of_devices(line: &str) -> bool {
    line.contains("behind root port") || line == "no device is passed through"
}

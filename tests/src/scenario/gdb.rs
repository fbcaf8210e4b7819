//! The guest's kernel under gdb: stock gdb on the lab host, at strait's stub or at QEMU's.
//!
//! Debug registers are not tried here: the emulated VMRUN loads DR7 and does not bring it into effect (QEMU,
//! target/i386/tcg/sysemu/svm_helper.c). The process tests of `vmm/tests/gdb.rs` try them where there is a KVM.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::device_leaves::gone;
use super::{Lab, Scenario};
use crate::agent::protocol::Finished;
use crate::guest::hypervisor::{give, inner, outer};
use crate::guest::{Guest, GuestConfig, Vmm};
use crate::lab::devices::NIC;

/// Where gdb is let in, and its files of symbols.
const SOCKET: &str = "/run/gdb";
const SYMBOLS: &str = "/run/guest.sym";

/// How a session begins.
const ATTACH: &str = "set pagination off\nset confirm off\ntarget remote /run/gdb\n";

/// Functions of the kernel that a guest without modules has.
const NAMES: &str = "__x64_sys_getpid|ksys_read|jiffies";

/// A host may ask for a device of a guest that stands still; after half a minute it gets it.
const UNBIND_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb",
            "a guest with a NIC waits for gdb, which steps, stops in a system call, and sets a thousand breakpoints",
            300,
            |lab| stops(lab, 1),
        ),
        Scenario::new("gdb-smp", "the same with two CPUs", 600, |lab| stops(lab, 2)).full(),
        Scenario::new(
            "gdb-reboot",
            "gdb stays at a guest that reboots, and its breakpoints with it",
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
            "gdb-nested",
            "a hypervisor's kernel is stopped in VFIO and KVM while its own guest has the NIC, which pings on",
            1200,
            nested,
        )
        .with_strait_inside()
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

/// Makes a file of symbols from what a guest's kernel tells of these names.
fn symbols(lab: &Lab<'_>, guest: &mut Guest<'_>, names: &str) -> Result<()> {
    let kallsyms = guest.sh(&format!("grep -wE '{names}' /proc/kallsyms"))?;
    let script = format!("cat > /run/kallsyms << 'END'\n{kallsyms}\nEND\nstrait symbols /run/kallsyms {SYMBOLS}");
    lab.agent.sh(&script).context("The symbols of the guest")?;
    Ok(())
}

/// What gdb prints that executes a script.
fn gdb(lab: &Lab<'_>, script: &str) -> Result<String> {
    let left = lab.deadline.saturating_duration_since(Instant::now());
    let typed = format!("{ATTACH}{script}");
    let Finished {
        code,
        output,
        errors,
        ..
    } = lab.agent.exec(&command(&typed), left)?;
    lab.log(&format!("{typed}\n--- gdb ---\n{output}\n{errors}"));
    ensure!(code == 0, "gdb ended with code {code}: {errors}");
    Ok(output)
}

fn command(script: &str) -> String {
    format!("cat > /run/script << 'END'\n{script}\nEND\nHOME=/root gdb -nx -q -batch -x /run/script {SYMBOLS} < /dev/null")
}

fn says(output: &str, words: &str) -> Result<()> {
    ensure!(output.contains(words), "gdb does not say `{words}`");
    Ok(())
}

/// A thousand places, none of which is met.
const THOUSAND: &str = "set $n = 0\nwhile $n < 1000\n  break *(0xffffffff81000000 + 64 * $n)\n  set $n = $n + 1\nend\n";

/// Starts gdb beside the guest, and waits until it lets the guest go on.
fn gdb_beside(lab: &Lab<'_>, script: &str) -> Result<()> {
    let typed = command(&format!("{ATTACH}{script}"));
    lab.agent.sh("rm -f /run/lab/gdb.out")?;
    lab.agent
        .start("gdb", ["bash", "-c", &typed].map(str::to_owned).to_vec())?;
    wait_for(lab, "Continuing")
}

/// Waits until the gdb beside the guest prints this.
fn wait_for(lab: &Lab<'_>, words: &str) -> Result<()> {
    let script = format!("until grep -q '{words}' /run/lab/gdb.out; do sleep 0.1; done");
    let left = lab.deadline.saturating_duration_since(Instant::now());
    lab.agent.exec(&script, left)?;
    Ok(())
}

/// What the gdb beside the guest has printed at its end.
fn gdb_ends(lab: &Lab<'_>) -> Result<String> {
    let left = lab.deadline.saturating_duration_since(Instant::now());
    let finished = lab.agent.wait("gdb", left)?;
    let said = lab.agent.sh("cat /run/lab/gdb.out")?;
    lab.log(&format!("--- gdb ---\n{said}\n{}", finished.errors));
    ensure!(finished.code == 0, "gdb ended with code {}", finished.code);
    Ok(said)
}

/// What a guest types to make the system call at which gdb waits.
const GETPID: &str = "sh -c 'echo $$' > /dev/null";

fn stops(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    let config = GuestConfig {
        cpus,
        waits_for_gdb: true,
        ..config(&[&lab.take(NIC.at())?])
    };
    lab.start(&config, |guest| {
        lab.agent.sh(&format!(": > {SYMBOLS}"))?;
        let said = gdb(lab, "info registers rip cr0\nstepi\nstepi\ninfo registers rip\ninfo threads\ndetach\n")?;
        let threads = said.lines().filter(|line| line.contains("Thread 1.")).count();
        ensure!(threads == cpus as usize, "gdb sees {threads} threads of {cpus} CPUs");
        let rips: Vec<&str> = said.lines().filter(|line| line.starts_with("rip ")).collect();
        ensure!(rips.len() == 2 && rips[0] != rips[1], "Two steps lead nowhere: {rips:?}");
        guest.ready()?;
        symbols(lab, guest, NAMES)?;
        let script = format!(
            "break __x64_sys_getpid\ncontinue\nbacktrace 2\nstepi\nx/2i $pc\ninfo threads\np *(long *) &jiffies\n\
             delete\n{THOUSAND}info breakpoints\ndelete\ndetach\n"
        );
        gdb_beside(lab, &script)?;
        guest.sh(GETPID)?;
        let said = gdb_ends(lab)?;
        says(&said, "Breakpoint 1, 0x")?;
        says(&said, "__x64_sys_getpid ()")?;
        says(&said, "Breakpoint 1001 at")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        guest.power_off().map(drop)
    })
}

/// The kernel is an ELF file, which is loaded as it runs: its breakpoints are there from the first instruction on.
fn reboot(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        image: "vmlinux",
        ..config(&[&lab.take(NIC.at())?])
    };
    lab.run(&config, |guest| {
        symbols(lab, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        gdb_beside(lab, "break __x64_sys_getpid\ncontinue\nbacktrace 1\ndelete\ndetach\n")?;
        guest.type_script("leave reboot")?;
        says(&gdb_ends(lab)?, "__x64_sys_getpid ()")?;
        guest.ready().context("The guest did not come back")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

fn killed(lab: &Lab<'_>) -> Result<()> {
    lab.run(&config(&[&lab.take(NIC.at())?]), |guest| {
        symbols(lab, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        let said = gdb(lab, "break ksys_read\ninfo threads\nshell kill -9 $PPID\n");
        ensure!(said.is_err(), "gdb was not killed");
        guest.sh("kill $(pidof wget)")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)
    })
}

fn unbind(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    lab.run(&config(&[&nic]), |guest| {
        symbols(lab, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        let script = format!("{ATTACH}echo attached\\n\nshell sleep 600\n");
        lab.agent.sh("rm -f /run/lab/gdb.out")?;
        lab.agent
            .start("gdb", ["bash", "-c", &command(&script)].map(str::to_owned).to_vec())?;
        wait_for(lab, "attached")?;
        let script = format!("echo {nic} > /sys/bus/pci/devices/{nic}/driver/unbind");
        let unbound = lab
            .agent
            .exec(&script, lab.host.pace.stretch(UNBIND_LIMIT))?;
        ensure!(unbound.code == 0, "The host cannot unbind the NIC: {}", unbound.errors);
        lab.agent.sh("pkill -9 gdb")?;
        gone(guest)
    })
}

/// Functions of L1's hypervisor and of what gives devices away.
const L1_NAMES: &str = "kvm_vcpu_ioctl|vfio_iommu_type1_ioctl|svm_vcpu_run";

fn nested(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..outer(&[&lab.take(NIC.at())?], Vmm::Strait).told("nokaslr")
    };
    lab.run(&config, |guest| {
        give(guest, "igb", &["01:00.0"])?;
        symbols(lab, guest, L1_NAMES)?;
        gdb_beside(lab, "break vfio_iommu_type1_ioctl\ncontinue\nbacktrace 2\ndelete\ndetach\n")?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        says(&gdb_ends(lab)?, "vfio_iommu_type1_ioctl ()")?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        let stops = "break kvm_vcpu_ioctl\ncontinue\ncontinue\nbacktrace 2\ninfo threads\ndelete\n\
             break svm_vcpu_run\ncontinue\nstepi\nstepi\nx/1i $pc\ndelete\nmonitor info devices\ndetach\n";
        gdb_beside(lab, stops)?;
        lab.eth0().ping(guest)?;
        let said = gdb_ends(lab)?;
        for words in ["kvm_vcpu_ioctl ()", "svm_vcpu_run ()", "behind root port 1"] {
            let is_qemu = lab.vmm == Vmm::Qemu && words.contains("port");
            ensure!(is_qemu || said.contains(words), "gdb does not say `{words}`");
        }
        lab.eth0().ping(guest)?;
        guest.leave()
    })
}

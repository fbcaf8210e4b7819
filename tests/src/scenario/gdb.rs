//! The guest's kernel under gdb: stock gdb on the lab host, at strait's stub or at QEMU's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

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
const NAMES: &str = "start_kernel|__x64_sys_getpid|ksys_read|jiffies";

/// A host may ask for a device of a guest that stands still; after half a minute it gets it.
const UNBIND_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb-boot",
            "a guest with a NIC waits for gdb: start_kernel, a system call, steps, a watched variable, a thousand breakpoints",
            400,
            |lab| boot(lab, 1),
        ),
        Scenario::new("gdb-boot-smp", "the same with two CPUs", 600, |lab| boot(lab, 2)).full(),
        Scenario::new(
            "gdb-reboot",
            "gdb stays at a guest that reboots, and meets its next start",
            300,
            reboot,
        ),
        Scenario::new(
            "gdb-killed",
            "gdb is killed while the guest stands still with data on their way: it goes on",
            240,
            killed,
        ),
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
            "a hypervisor's kernel is stopped in KVM and VFIO while its own guest has the NIC, which pings on",
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

/// The same of a guest that was started for it: those of one that has not started yet.
fn symbols_beforehand(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig::default().told("nokaslr");
    lab.run(&config, |guest| symbols(lab, guest, NAMES))
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

fn boot(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    symbols_beforehand(lab)?;
    let config = GuestConfig {
        cpus,
        waits_for_gdb: true,
        ..config(&[&lab.take(NIC.at())?])
    };
    lab.run_under(&config, |lab| {
        let said = gdb(
            lab,
            &format!(
                "info registers cr0 efer\nhbreak start_kernel\ncontinue\nbacktrace 1\ndelete\n\
                 stepi\nstepi\ninfo registers rip\n\
                 watch *(long *) &jiffies\ncontinue\ndelete\n\
                 break __x64_sys_getpid\ncontinue\nbacktrace 2\ninfo threads\ndelete\n\
                 {THOUSAND}info breakpoints\ndelete\nx/2i $pc\ndetach\n"
            ),
        )?;
        says(&said, "Breakpoint 1, 0x")?;
        says(&said, "start_kernel ()")?;
        says(&said, "Hardware watchpoint 2")?;
        says(&said, "Old value =")?;
        says(&said, "__x64_sys_getpid ()")?;
        says(&said, "Breakpoint 1003 at")?;
        says(&said, &format!("Thread 1.{cpus} "))
    }, |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

fn reboot(lab: &Lab<'_>) -> Result<()> {
    lab.start(&config(&[&lab.take(NIC.at())?]), |guest| {
        guest.ready()?;
        symbols(lab, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        let script = format!("{ATTACH}hbreak start_kernel\ncontinue\nbacktrace 1\ndetach\n");
        lab.agent.start("gdb", ["bash", "-c", &command(&script)].map(str::to_owned).to_vec())?;
        // It attaches, and lets the guest go on.
        lab.agent
            .sh("for n in $(seq 600); do grep -q Continuing /run/lab/gdb.out && break; sleep 0.1; done; true")?;
        guest.type_script("leave reboot")?;
        let left = lab.deadline.saturating_duration_since(Instant::now());
        lab.agent.wait("gdb", left)?;
        let said = lab.agent.sh("cat /run/lab/gdb.out")?;
        lab.log(&said);
        says(&said, "start_kernel ()")?;
        guest.ready()?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        guest.power_off().map(drop)
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
    lab.start(&config(&[&nic]), |guest| {
        guest.ready()?;
        symbols(lab, guest, NAMES)?;
        lab.eth0().up(guest, "igb")?;
        let script = format!("{ATTACH}shell sleep 600\n");
        lab.agent.start("gdb", ["bash", "-c", &command(&script)].map(str::to_owned).to_vec())?;
        lab.agent
            .sh("for n in $(seq 600); do grep -q ' in ' /run/lab/gdb.out && break; sleep 0.1; done; true")?;
        let script = format!("echo {nic} > /sys/bus/pci/devices/{nic}/driver/unbind");
        let unbound = lab.agent.exec(&script, lab.host.pace.stretch(UNBIND_LIMIT))?;
        ensure!(unbound.code == 0, "The host cannot unbind the NIC: {}", unbound.errors);
        lab.agent.sh("pkill -9 gdb")?;
        guest.sh("wait_until 60 test ! -e /sys/class/net/eth0 || fail eth0 is still there")?;
        guest.power_off().map(drop)
    })
}

/// Functions of L1's hypervisor and of what gives devices away.
const L1_NAMES: &str = "kvm_vcpu_ioctl|vfio_iommu_type1_ioctl|intel_iommu_map_pages|svm_vcpu_run";

fn nested(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..outer(&[&lab.take(NIC.at())?], Vmm::Strait).told("nokaslr")
    };
    lab.run(&config, |guest| {
        give(guest, "igb", &["01:00.0"])?;
        symbols(lab, guest, L1_NAMES)?;
        guest.type_script(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        let said = gdb(lab, "break vfio_iommu_type1_ioctl\ncontinue\nbacktrace 2\ndelete\ndetach\n")?;
        says(&said, "vfio_iommu_type1_ioctl ()")?;
        guest.ready()?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        let stops = "break kvm_vcpu_ioctl\ncontinue\ncontinue\ncontinue\nbacktrace 2\ninfo threads\ndelete\n\
             hbreak svm_vcpu_run\ncontinue\nstepi\nstepi\ndelete\nmonitor info viommu\ndetach\n";
        let said = gdb(lab, stops)?;
        says(&said, "kvm_vcpu_ioctl ()")?;
        lab.eth0().ping(guest)?;
        guest.leave()
    })
}

//! A hypervisor under gdb, stopped while its guest owns the NIC.

use anyhow::{Result, ensure};

use super::gdb::{gdb, says};
use super::{Lab, Scenario};
use crate::guest::gdb_session::{SOCKET, symbols};
use crate::guest::hypervisor::{give, inner, outer};
use crate::guest::{GuestConfig, Vmm, number};
use crate::lab::devices::{NIC, NVME};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb-nested",
            "a hypervisor is stopped again and again, in its guest too, while that one has the NIC: data flow on",
            1200,
            nested,
        )
        .with_strait_inside()
        .full(),
        Scenario::new(
            "gdb-nested-vfio",
            "a hypervisor is stopped in vfio_iommu_type1 and in intel_iommu while its guest has the NIC: pings go on",
            1800,
            in_vfio,
        )
        .strait_only()
        .with_strait_inside()
        .full(),
    ]
}

fn nested(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..outer(&[&lab.take(NIC.at())?], Vmm::Strait).told("nokaslr")
    };
    lab.run(&config, |guest| {
        give(guest, "igb", &["01:00.0"])?;
        symbols(lab.agent, guest, "kvm_vcpu_ioctl|vfio_iommu_type1_ioctl|svm_vcpu_run|ksys_read")?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        for _ in 0..10 {
            let said = gdb(lab, "info threads\nx/1i svm_vcpu_run\ndetach\n")?;
            says(&said, "vCPU 0")?;
            says(&said, "<svm_vcpu_run>:")?;
        }
        guest.sh("kill $(pidof wget)")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        guest.leave()
    })
}

/// Functions of L1's on the way of a mapping, of VFIO's and of the IOMMU's driver.
const WAY: [&str; 2] = ["vfio_iommu_type1_ioctl", "intel_iommu_map_pages"];

/// `jmp` to itself, in the place of a function's first bytes: the CPU waits there to be stopped. Breakpoints do not stop the
/// emulated CPU (see [`gdb`](super::gdb)).
const WAIT_HERE: u16 = 0xfeeb;

/// How often it is looked whether the CPU is there yet.
const LOOKS: u32 = 20;

/// For each of gdb's `continue`: leaves the guest to itself for a while, and stops it as by Ctrl-C.
const INTERRUPTS: &str = "rm -f /run/goes-on; (while sleep 1; do
    [ -e /run/goes-on ] || continue
    rm /run/goes-on; sleep 10; pkill -INT -x gdb
done) > /dev/null 2>&1 & echo $! > /run/interrupts";

/// It would stop the gdb of a later scenario, too.
const NO_INTERRUPTS: &str = "kill $(cat /run/interrupts); rm -f /run/interrupts /run/goes-on";

/// Another VMM in L1 maps memory for a drive again and again, and is stopped and ended, when L2 has had time to start.
const MAPS: &str = "(until pidof strait; do sleep 1; done; sleep 60; while :; do
    timeout 8 strait run --kernel /lab/guest/vmlinuz-* --initrd /lab/guest/inner-* --memory 300M \
        --device 0000:02:00.0 --gdb unix:/run/other -S
done) < /dev/null > /dev/null 2>&1 &";

/// Stops the guest in a function, shows where, and lets the function be as it was.
fn stop_in(name: &str) -> String {
    format!(
        "set $here = (unsigned long) &{name}\nset $was = *(unsigned short *) $here\n\
         set *(unsigned short *) $here = {WAIT_HERE:#x}\nset $looks = 0\n\
         while $rip != $here && $looks < {LOOKS}\n  shell touch /run/goes-on\n  continue\n  set $looks = $looks + 1\nend\n\
         x/1i $rip\ninfo threads\nset *(unsigned short *) $here = $was\n"
    )
}

fn in_vfio(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..outer(&[&lab.take(NIC.at())?, &lab.take(NVME.at())?], Vmm::Strait).told("nokaslr")
    };
    lab.run(&config, |guest| {
        give(guest, "igb nvme", &["01:00.0", "02:00.0"])?;
        guest.sh(MAPS)?;
        symbols(lab.agent, guest, &WAY.join("|"))?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        guest.sh("ping 10.0.2.2 > /run/pings 2>&1 &")?;
        lab.agent.sh(INTERRUPTS)?;
        let said = gdb(lab, &(WAY.map(stop_in).concat() + "detach\n"));
        lab.agent.sh(NO_INTERRUPTS)?;
        let said = said?;
        for name in WAY {
            says(&said, &format!("<{name}>:"))?;
        }
        let answered = |guest: &mut _| number(guest, "grep -c 'bytes from' /run/pings || true");
        let before = answered(guest)?;
        guest.sh("sleep 5")?;
        let after = answered(guest)?;
        ensure!(after > before, "Pings stopped after {before} answers");
        guest.sh("kill $(pidof ping)")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        guest.leave()
    })
}

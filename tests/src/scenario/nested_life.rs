//! Ends and beginnings around a device that is passed on: drivers that come and go, a reboot, a sudden death.

use anyhow::{Context as _, Result, ensure};

use super::nested::works_outside;
use super::{Lab, Scenario};
use crate::guest::hypervisor::{give, inner, outer, take_back};
use crate::guest::{Guest, Vmm, says};
use crate::lab::devices::NIC;
use crate::lab::pinned_pages;

pub(super) fn scenarios() -> Vec<Scenario> {
    let all = vec![
        Scenario::new(
            "nested-rebind",
            "the guest moves the NIC between igb and vfio-pci a hundred times, then pings",
            1800,
            rebind,
        ),
        Scenario::new(
            "nested-reboot",
            "the outer guest reboots while data flows into the inner one, and starts it again",
            900,
            reboot,
        ),
        Scenario::new(
            "nested-kill",
            "the inner VMM is killed in the middle of traffic and started again, twice",
            900,
            kill,
        ),
    ];
    all.into_iter()
        .map(|scenario| scenario.with_strait_inside().full())
        .collect()
}

/// A driver maps its rings when its interface comes up, and unmaps them when it loses the device.
const REBIND: &str = "path=/sys/bus/pci/devices/0000:01:00.0; rounds=0
    while [ $rounds -lt 100 ]; do
        for driver in vfio-pci igb; do
            echo 0000:01:00.0 > $path/driver/unbind; echo $driver > $path/driver_override
            echo 0000:01:00.0 > /sys/bus/pci/drivers_probe
            [ $(driver_of $path) = $driver ] || fail round $rounds: no $driver
        done
        echo > $path/driver_override
        wait_until 60 ip link set eth0 up || fail round $rounds: eth0 cannot be brought up
        rounds=$((rounds + 1))
    done
    echo $rounds";

fn rebind(lab: &Lab<'_>) -> Result<()> {
    let mut config = outer(&[&lab.take(NIC.at())?], Vmm::Strait);
    config.words = config.words.replace(" iommu=pt", "");
    lab.run(&config, |guest| {
        // Bound to vfio-pci and not open, the device reaches nothing: what is pinned before is pinned after.
        give(guest, "igb", &["01:00.0"])?;
        let before = pinned_pages(lab.agent)?;
        take_back(guest, "01:00.0", "igb")?;
        says(guest, REBIND, "100")?;
        give(guest, "igb", &["01:00.0"])?;
        let after = pinned_pages(lab.agent)?;
        ensure!(
            after <= before,
            "{after} pages are pinned after 100 rounds, before {before}"
        );
        works_outside(lab, guest, "igb")
    })
}

/// Starts L2 beside L1's console, and lets data flow into it without end: what L2 is to run comes through a pipe.
fn flood_behind(lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<()> {
    guest.sh(&format!(
        "rm -f /run/typed; mkfifo /run/typed
         (exec 3<> /run/typed; exec {} <&3) > /run/l2 2>&1 &",
        inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1)
    ))?;
    guest.sh("wait_until 300 grep -q 'LAB ready' /run/l2 || { cat /run/l2; fail the inner guest does not come up; }")?;
    guest.sh(&format!(
        "cat > /run/typed << 'END'\nload igb\n{}\n{}\necho flowing\nEND\necho . > /run/typed",
        lab.eth0().up_line(),
        lab.eth0().flood_script()
    ))?;
    guest
        .sh("wait_until 300 grep -q '^flowing' /run/l2 || { cat /run/l2; fail no data flows into the inner guest; }")
        .map(drop)
}

fn reboot(lab: &Lab<'_>) -> Result<()> {
    lab.run(&outer(&[&lab.take(NIC.at())?], Vmm::Strait), |guest| {
        for boot in ["first", "second"] {
            give(guest, "igb", &["01:00.0"])
                .and_then(|()| flood_behind(lab, guest))
                .with_context(|| format!("In the outer guest's {boot} boot"))?;
            if boot == "first" {
                guest.reboot()?;
            }
        }
        Ok(())
    })
}

/// Once data flows into the inner guest its VMM dies, without a word.
fn kill(lab: &Lab<'_>) -> Result<()> {
    lab.run(&outer(&[&lab.take(NIC.at())?], Vmm::Strait), |guest| {
        give(guest, "igb", &["01:00.0"])?;
        for _ in 0..2 {
            flood_behind(lab, guest)?;
            guest.sh("kill -9 $(pidof strait); gone() { ! pidof strait; }; wait_until 60 gone")?;
        }
        works_outside(lab, guest, "igb")
    })
}

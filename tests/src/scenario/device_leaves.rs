//! The host takes a device back while a guest has it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig};
use crate::lab::devices::NIC;

/// Longer than a guest may keep a device that is asked for.
const UNBIND_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "unbind",
            "the host unbinds a NIC in use: the guest lets go of it and goes on",
            300,
            |lab| unbind(lab, |config| config, gone),
        )
        .strait_only(),
        Scenario::new(
            "unbind-viommu",
            "the same behind the guest's own IOMMU",
            300,
            |lab| unbind(lab, |config| config.behind_iommu("intel_iommu=on"), gone),
        )
        .strait_only()
        .full(),
        Scenario::new(
            "unbind-deaf",
            "the same with a guest that knows no hot plug: the NIC is pulled",
            300,
            |lab| unbind(lab, |config| config.told("pcie_ports=compat"), pulled),
        )
        .strait_only()
        .full(),
        Scenario::new(
            "unbind-reboot",
            "the host unbinds a NIC and the guest reboots before it lets go: the NIC is pulled",
            240,
            unbind_reboot,
        )
        .strait_only()
        .full(),
    ]
}

/// The NIC has left: its driver lets go of eth0 first, then its function goes.
pub(super) fn gone(guest: &mut Guest<'_>) -> Result<()> {
    guest.sh(
        "wait_until 60 test ! -e /sys/class/net/eth0 || fail eth0 is still there
         wait_until 60 test ! -e /sys/bus/pci/devices/0000:01:00.0 || fail its function is still there",
    )?;
    Ok(())
}

/// The NIC was pulled from a kernel that does not notice: its driver stays, its function answers nothing.
fn pulled(guest: &mut Guest<'_>) -> Result<()> {
    guest.sh(
        "silent() { [ \"$(od -A n -t x2 -N 2 /sys/bus/pci/devices/0000:01:00.0/config)\" = ' ffff' ]; }
         wait_until 60 silent || fail the function still answers",
    )?;
    Ok(())
}

fn unbind(
    lab: &Lab<'_>,
    change: impl Fn(GuestConfig) -> GuestConfig,
    has_left: impl Fn(&mut Guest<'_>) -> Result<()>,
) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    lab.run(&change(GuestConfig::with(&[&nic])), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        let script = format!("echo {nic} > /sys/bus/pci/devices/{nic}/driver/unbind");
        let unbound = lab.agent.exec(&script, lab.host.pace.stretch(UNBIND_LIMIT))?;
        ensure!(
            unbound.code == 0,
            "The host cannot unbind the NIC: {}",
            unbound.errors
        );
        let pid = guest.pid;
        let held = lab.agent.sh(&format!("cat /proc/{pid}/maps; ls -l /proc/{pid}/fd"))?;
        let still = held.lines().find(|line| line.contains("vfio-device"));
        ensure!(still.is_none(), "The VMM still has a part of the NIC: {still:?}");
        has_left(guest)
    })?;
    works_again(lab)
}

/// The guest keeps its NIC for some seconds after it is asked, and reboots meanwhile. The host has the NIC when
/// the next boot begins, not when somebody asks that one again.
fn unbind_reboot(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let driver = format!("/sys/bus/pci/devices/{nic}/driver");
    lab.run(&GuestConfig::with(&[&nic]), |guest| {
        lab.agent.sh(&format!(
            "(echo {nic} > {driver}/unbind) > /dev/null 2>&1 & sleep 1"
        ))?;
        guest.reboot()?;
        let state = lab
            .agent
            .sh(&format!("test -e {driver} && echo held || echo free"))?;
        ensure!(
            state.trim() == "free",
            "The host does not have the NIC back: {state}"
        );
        gone(guest)
    })?;
    works_again(lab)
}

/// The NIC serves another guest.
fn works_again(lab: &Lab<'_>) -> Result<()> {
    lab.give_back()?;
    let nic = lab.take(NIC.at())?;
    lab.run(&GuestConfig::with(&[&nic]), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

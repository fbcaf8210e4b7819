//! NICs, by each way to interrupt, with their drivers' own tests.

use anyhow::{Result, ensure};

use super::{take, with};
use crate::guest::{Guest, Interface, says};
use crate::lab::devices::{E1000E, NIC, RTL8139};
use crate::scenario::{Lab, Scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "intx-rtl8139",
            "a conventional PCI NIC with 8139cp: its wire, pings, 32 MiB intact",
            240,
            rtl8139,
        ),
        Scenario::new(
            "intx-igb",
            "igb without messages: the wire, pings, 32 MiB intact, the driver's own test",
            240,
            |lab| igb(lab, NIC.at(), "pci=nomsi", "IO-APIC"),
        )
        .full(),
        Scenario::new(
            "msi-igb",
            "igb with MSI-X hidden: MSI, pings, 32 MiB intact, the driver's own test",
            240,
            |lab| igb(lab, "8086:10c9,msix=off", "", "PCI-MSI"),
        )
        .strait_only()
        .full(),
        Scenario::new(
            "msix-igb",
            "igb with MSI-X: the driver's own test, which takes interrupts in turn",
            240,
            |lab| igb(lab, NIC.at(), "", "PCI-MSIX"),
        ),
        Scenario::new(
            "intx-e1000e",
            "a NIC's two functions in one slot, on one wire, both at work",
            300,
            one_wire,
        )
        .strait_only(),
        Scenario::new(
            "switching",
            "a NIC from its wire to MSI-X, over MSI back to its wire, as its driver is loaded and unloaded",
            400,
            switching,
        ),
        Scenario::new(
            "msix-e1000e",
            "the same NIC with MSI-X, both functions at work",
            300,
            messages,
        )
        .full(),
    ]
}

/// Link, pings, data, and interrupts that come through `controller`.
fn exchange(guest: &mut Guest<'_>, nic: &Interface<'_>, driver: &str, controller: &str) -> Result<()> {
    nic.up(guest, driver)?;
    nic.ping(guest)?;
    nic.fetch(guest)?;
    let vectors = nic.counted(guest, 1)?;
    for vector in vectors {
        let found = &vector.controller;
        ensure!(
            found == controller,
            "{} interrupts by {found}, expected {controller}",
            vector.name
        );
    }
    Ok(())
}

/// Data through both NICs together.
pub(super) fn at_once(guest: &mut Guest<'_>, one: &Interface<'_>, other: &Interface<'_>) -> Result<()> {
    let said = guest.sh(&format!(
        "({}) > /run/first & ({}) > /run/second & wait; cat /run/first /run/second",
        one.fetch_line(),
        other.fetch_line()
    ))?;
    let (first, second) = said.split_once('\n').unwrap_or((&said, ""));
    one.check(first)?;
    other.check(second)
}

fn rtl8139(lab: &Lab<'_>) -> Result<()> {
    lab.run(&take(lab, &[RTL8139.at()])?, |guest| {
        guest.sh("load 8139cp")?;
        exchange(guest, &lab.interface("eth0", "10.0.3"), "8139cp", "IO-APIC")
    })
}

/// The driver's own test has registers, EEPROM, interrupts, loopback and link; the NIC must still work behind it.
fn igb(lab: &Lab<'_>, device: &str, words: &str, controller: &str) -> Result<()> {
    take(lab, &[NIC.at()])?;
    lab.run(&with(&[device]).told(words), |guest| {
        let eth0 = lab.eth0();
        guest.sh("load igb")?;
        exchange(guest, &eth0, "igb", controller)?;
        let said = guest.sh("/bin/ethtool -t eth0 offline")?;
        ensure!(said.contains("result is PASS"), "The driver's own test: {said}");
        guest.sh("wait_until 30 grep -q 1 /sys/class/net/eth0/carrier || fail no link behind the test")?;
        eth0.ping(guest)?;
        eth0.fetch(guest)
    })
}

/// Both functions are of one group, so that the guest can have neither while the host has the other, and
/// both use INTA.
fn one_wire(lab: &Lab<'_>) -> Result<()> {
    lab.run(&take(lab, E1000E.functions)?, |guest| {
        says(
            guest,
            "echo $(ls /sys/bus/pci/devices | grep -v '^0000:00')",
            "0000:01:00.0 0000:01:00.1",
        )?;
        guest.sh("load e1000e; rmmod e1000e; insmod /modules/e1000e.ko IntMode=0,0")?;
        both_functions(lab, guest, "IO-APIC")?;
        says(
            guest,
            "echo $(grep eth0 /proc/interrupts | grep -o 'IO-APIC\\|eth[01]' | sort -u)",
            "IO-APIC eth0 eth1",
        )
    })
}

fn messages(lab: &Lab<'_>) -> Result<()> {
    lab.run(&take(lab, E1000E.functions)?, |guest| {
        guest.sh("load e1000e")?;
        both_functions(lab, guest, "PCI-MSIX")
    })
}

fn both_functions(lab: &Lab<'_>, guest: &mut Guest<'_>, controller: &str) -> Result<()> {
    let (eth0, eth1) = (lab.interface("eth0", "10.0.4"), lab.interface("eth1", "10.0.5"));
    exchange(guest, &eth0, "e1000e", controller)?;
    eth1.up(guest, "e1000e")?;
    at_once(guest, &eth0, &eth1)
}

/// The driver's parameter and what it then interrupts by. The last time it turns MSI on for a trial, which fails
/// with QEMU's model more often than not, and goes on with the wire then.
const MODES: [(u32, &[&str]); 3] = [
    (0, &["IO-APIC"]),
    (2, &["PCI-MSIX"]),
    (1, &["IO-APIC", "PCI-MSI"]),
];

fn switching(lab: &Lab<'_>) -> Result<()> {
    let eth0 = lab.interface("eth0", "10.0.4");
    lab.run(&take(lab, E1000E.functions)?, |guest| {
        guest.sh("load e1000e")?;
        for (mode, controllers) in MODES {
            guest.sh(&format!("rmmod e1000e; insmod /modules/e1000e.ko IntMode={mode},{mode}"))?;
            eth0.up(guest, "e1000e")?;
            eth0.ping(guest)?;
            let vectors = eth0.vectors(guest)?;
            let found = vectors.first().map_or("nothing", |vector| vector.controller.as_str());
            ensure!(
                controllers.contains(&found),
                "The NIC interrupts by {found}, expected {controllers:?}"
            );
        }
        Ok(())
    })
}

//! NICs, by each way to interrupt, with their drivers' own tests.

use anyhow::{Result, ensure};

use super::{E1000E, RTL8139, config, in_network, ping_and_fetch, run, says, with_words};
use crate::guest::Guest;
use crate::lab::NIC;
use crate::scenario::{Context, Scenario, Verdict};

/// What a NIC does here.
const STEPS: &str = "net,ping3,fetch,irqs";

/// The same, and the driver's own test, after which the NIC must still work.
const TEST_STEPS: &str = "net,ping3,fetch,irqs,selftest,ping3,fetch";

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
            |lab| igb(lab, NIC, "pci=nomsi", "IO-APIC"),
        ),
        Scenario::new(
            "msi-igb",
            "igb with MSI-X hidden: MSI, pings, 32 MiB intact, the driver's own test",
            240,
            |lab| igb(lab, "8086:10c9,msix=off", "", "PCI-MSI"),
        )
        .strait_only(),
        Scenario::new(
            "msix-igb",
            "igb with MSI-X: the driver's own test, which takes interrupts in turn",
            240,
            |lab| igb(lab, NIC, "", "PCI-MSIX"),
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

/// What [`STEPS`] print; `controller` is what the interrupts come through.
fn exchange(lab: &Context<'_>, guest: &mut Guest<'_>, driver: &str, controller: &str) -> Result<()> {
    says(guest, "driver", driver)?;
    ping_and_fetch(lab, guest)?;
    let irqs = guest.expect_irqs()?;
    lab.check_irqs(&irqs, 1)?;
    says(guest, "controller", controller)
}

/// What the rest of [`TEST_STEPS`] prints.
fn test(lab: &Context<'_>, guest: &mut Guest<'_>) -> Result<()> {
    says(guest, "selftest", "PASS")?;
    ping_and_fetch(lab, guest)
}

fn rtl8139(lab: &Context) -> Result<Verdict> {
    let config = in_network(config(lab, &[RTL8139], "8139cp", STEPS), "10.0.3");
    run(lab, &[RTL8139], &config, |guest| {
        exchange(lab, guest, "8139cp", "IO-APIC")
    })
}

fn igb(lab: &Context, device: &str, words: &str, controller: &str) -> Result<Verdict> {
    let config = with_words(config(lab, &[device], "igb", TEST_STEPS), words);
    run(lab, &[NIC], &config, |guest| {
        exchange(lab, guest, "igb", controller)?;
        test(lab, guest)
    })
}

/// Both functions at work together.
fn both(lab: &Context<'_>, guest: &mut Guest<'_>) -> Result<()> {
    for nic in ["first", "second"] {
        lab.check_hash(&guest.expect(nic)?)?;
    }
    Ok(())
}

/// Both functions are of one group, so that the guest can have neither while the host has the other, and
/// both use INTA.
fn one_wire(lab: &Context) -> Result<Verdict> {
    let steps = format!("functions,{STEPS},second,wire");
    let config = in_network(config(lab, &E1000E, "e1000e", &steps), "10.0.4");
    let config = with_words(config, "lab.second=10.0.5 lab.parameters=IntMode=0,0");
    run(lab, &E1000E, &config, |guest| {
        says(guest, "functions", "0000:01:00.0 0000:01:00.1 ")?;
        exchange(lab, guest, "e1000e", "IO-APIC")?;
        both(lab, guest)?;
        let wire = guest.expect("wire")?;
        ensure!(
            wire == "IO-APIC eth0 eth1 ",
            "The wire has {wire}, expected both NICs"
        );
        Ok(())
    })
}

/// The third time the driver turns MSI on for a trial, which fails with QEMU's model more often than not, and
/// goes on with the wire then.
fn switching(lab: &Context) -> Result<Verdict> {
    let config = in_network(config(lab, &E1000E, "", "modes"), "10.0.4");
    run(lab, &E1000E, &config, |guest| {
        for controllers in [&["IO-APIC"][..], &["PCI-MSIX"], &["IO-APIC", "PCI-MSI"]] {
            says(guest, "ping", "3")?;
            let mode = guest.expect("mode")?;
            ensure!(
                controllers.contains(&&*mode),
                "The NIC interrupts by {mode}, expected {controllers:?}"
            );
        }
        Ok(())
    })
}

fn messages(lab: &Context) -> Result<Verdict> {
    let steps = format!("{STEPS},second");
    let config = in_network(config(lab, &E1000E, "e1000e", &steps), "10.0.4");
    let config = with_words(config, "lab.second=10.0.5");
    run(lab, &E1000E, &config, |guest| {
        exchange(lab, guest, "e1000e", "PCI-MSIX")?;
        both(lab, guest)
    })
}

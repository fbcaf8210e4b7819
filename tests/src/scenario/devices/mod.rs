//! Devices of every kind, each with the guest's own driver, and every way to interrupt.

use anyhow::{Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::lab::{Assigned, NVME};
use crate::vmm::GuestConfig;

/// The conventional PCI NIC, behind a bridge.
const RTL8139: &str = "0000:04:00.0";

/// The USB controller with a stick.
const XHCI: &str = "0000:06:00.0";

/// What a NIC does here; `controller` says what its interrupts come through.
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
            |lab| igb(lab, "pci=nomsi", "IO-APIC"),
        ),
        Scenario::new(
            "msix-igb",
            "igb with MSI-X: the driver's own test, which takes interrupts in turn",
            240,
            |lab| igb(lab, "", "PCI-MSIX"),
        ),
        Scenario::new(
            "msi-xhci",
            "a USB controller that has MSI and no MSI-X: 8 MiB written to a stick and read back",
            240,
            xhci,
        ),
        Scenario::new("nvme", "an NVMe drive: 64 MiB written and read back", 240, nvme),
    ]
}

/// A guest with the drivers that it needs.
fn config(lab: &Context<'_>, device: &Assigned<'_>, drivers: &str, steps: &str) -> GuestConfig {
    let config = lab.config_with(device, steps);
    GuestConfig {
        initrd: "devices",
        cmdline: format!("{} lab.drivers={drivers}", config.cmdline),
        ..config
    }
}

/// The guest's address and its server in another of the lab machine's networks.
fn in_network(config: GuestConfig, network: &str) -> GuestConfig {
    let cmdline = config.cmdline.replace("10.0.2.15", &format!("{network}.15"));
    GuestConfig {
        cmdline: format!("{cmdline} lab.server={network}.2"),
        ..config
    }
}

fn ping_and_fetch(lab: &Context<'_>, guest: &mut Guest<'_>) -> Result<()> {
    let answered = guest.expect("ping")?;
    ensure!(answered == "3", "{answered} of 3 pings were answered");
    lab.check_hash(&guest.expect("fetch")?)
}

/// What [`STEPS`] print.
fn exchange(lab: &Context<'_>, guest: &mut Guest<'_>, driver: &str, controller: &str) -> Result<()> {
    let found = guest.expect("driver")?;
    ensure!(
        found == driver,
        "The guest drives the NIC by {found}, expected {driver}"
    );
    ping_and_fetch(lab, guest)?;
    let irqs = guest.expect_irqs()?;
    lab.check_irqs(&irqs, 1)?;
    let through = guest.expect("controller")?;
    ensure!(
        through == controller,
        "The interrupts come through {through}, expected {controller}"
    );
    Ok(())
}

/// What the rest of [`TEST_STEPS`] prints.
fn test(lab: &Context<'_>, guest: &mut Guest<'_>) -> Result<()> {
    let result = guest.expect("selftest")?;
    ensure!(result == "PASS", "The driver's own test says {result}");
    ping_and_fetch(lab, guest)
}

fn rtl8139(lab: &Context) -> Result<Verdict> {
    let nic = Assigned::bind(lab.agent, RTL8139)?;
    let config = in_network(config(lab, &nic, "8139cp", STEPS), "10.0.3");
    lab.with_guest(&config, |guest| {
        exchange(lab, guest, "8139cp", "IO-APIC")?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn igb(lab: &Context, word: &str, controller: &str) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let mut config = config(lab, &nic, "igb", TEST_STEPS);
    config.cmdline = format!("{} {word}", config.cmdline).trim_end().to_owned();
    lab.with_guest(&config, |guest| {
        exchange(lab, guest, "igb", controller)?;
        test(lab, guest)?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn xhci(lab: &Context) -> Result<Verdict> {
    let controller = Assigned::bind(lab.agent, XHCI)?;
    let drivers = "xhci_pci,usb_storage,sd_mod";
    lab.with_guest(&config(lab, &controller, drivers, "stick"), |guest| {
        let (wrote, read) = (guest.expect("wrote")?, guest.expect("read")?);
        ensure!(wrote == read, "8 MiB with SHA-256 {wrote} came back with {read}");
        let through = guest.expect("controller")?;
        ensure!(
            through == "PCI-MSI",
            "The interrupts come through {through}, expected MSI"
        );
        guest.expect_power_off()
    })?;
    controller.restore()?;
    Ok(Verdict::Passed)
}

fn nvme(lab: &Context) -> Result<Verdict> {
    let drive = Assigned::bind(lab.agent, NVME)?;
    lab.with_guest(&config(lab, &drive, "nvme", "nvme"), |guest| {
        let (wrote, read) = (guest.expect("wrote")?, guest.expect("read")?);
        ensure!(wrote == read, "64 MiB with SHA-256 {wrote} came back with {read}");
        let vectors: u32 = guest.expect("vectors")?.parse()?;
        ensure!(
            vectors >= 2,
            "The drive has {vectors} vectors, expected an I/O queue's too"
        );
        guest.expect_power_off()
    })?;
    drive.restore()?;
    Ok(Verdict::Passed)
}

//! The lean machine: Linux starts in it with fewer exits, and misses nothing that it needs.

use anyhow::{Result, ensure};

use super::control::{HEAR, ask, with_socket};
use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig, complaints, says};
use crate::lab::devices::{NIC, RTL8139};
use crate::supplies::OLD_SERIES;

const LEAN: &[&str] = &["--machine", "lean"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let of = |name: &str, cpus| {
        let about = format!("a lean machine with {cpus} CPUs: NICs by messages and by wire, over a reboot");
        Scenario::new(name, about, 300, move |lab| nics(lab, cpus)).strait_only()
    };
    vec![
        of("lean", 2),
        of("lean-smp-4", 4).full(),
        with_kernel("lean-6.1", "Debian's 6.1 kernel", OLD_SERIES),
        with_kernel("lean-7", "the newest kernel of Debian's backports", "7").with_further_kernel(),
        Scenario::new(
            "lean-viommu",
            "a lean machine with an IOMMU of its own, strict: a NIC at work, over a reboot",
            300,
            |lab| one_nic(lab, GuestConfig::default().behind_iommu("intel_iommu=on,strict")),
        )
        .strait_only()
        .full(),
        Scenario::new(
            "lean-button",
            "the power button of a lean machine, on the first pin of its I/O APIC",
            200,
            button,
        )
        .strait_only()
        .full(),
    ]
}

fn with_kernel(name: &str, kernel: &str, series: &'static str) -> Scenario {
    let about = format!("a lean machine with {kernel}: a NIC at work, over a reboot");
    let run = move |lab: &Lab<'_>| {
        lab.needs_kernel(series)?;
        let config = GuestConfig {
            series,
            ..GuestConfig::default()
        };
        one_nic(lab, config)
    };
    Scenario::new(name, about, 200, run).strait_only().full()
}

fn nics(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    let config = GuestConfig {
        cpus,
        initrd: "devices",
        more: LEAN,
        ..GuestConfig::with(&[&lab.take(NIC.at())?, &lab.take(RTL8139.at())?])
    };
    lab.run(&config, |guest| {
        work(lab, guest)?;
        guest.reboot()?;
        work(lab, guest)
    })
}

fn work(lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<()> {
    complaints(guest)?;
    says(guest, "dmesg | grep -c 'configuration type 1' || true", "0")?;
    says(guest, "ls /dev | grep rtc || true", "")?;
    let age = guest.sh("date +%Y")?;
    ensure!(age.trim() >= "2026", "The guest takes this year for {age}");
    guest.sh("load igb 8139cp")?;
    for (interface, driver) in [(lab.eth0(), "igb"), (lab.interface("eth1", "10.0.3"), "8139cp")] {
        interface.up(guest, driver)?;
        interface.ping(guest)?;
        interface.fetch(guest)?;
    }
    Ok(())
}

fn one_nic(lab: &Lab<'_>, config: GuestConfig) -> Result<()> {
    let config = GuestConfig {
        devices: vec![lab.take(NIC.at())?],
        more: LEAN,
        ..config
    };
    let pings = |guest: &mut Guest<'_>| {
        complaints(guest)?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().fetch(guest)
    };
    lab.run(&config, |guest| {
        pings(guest)?;
        guest.reboot()?;
        pings(guest)
    })
}

fn button(lab: &Lab<'_>) -> Result<()> {
    let config = with_socket(GuestConfig {
        initrd: "devices",
        more: LEAN,
        ..GuestConfig::default()
    });
    lab.start(&config, |guest| {
        guest.ready()?;
        guest.sh(HEAR)?;
        ask(lab, &["system_powerdown"])?;
        guest.expect_end(0).map(drop)
    })
}

//! Ends and beginnings: reboot, power-off, sudden death, and the start after each.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::devices::NIC;

/// What strait answers when the guest asks for a reset under `--no-reboot`.
const RESET: i32 = 32;
/// What strait answers when the guest dies.
const PANIC: i32 = 34;

const SIGTERM: i32 = 15;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "reboot",
            "the guest reboots with its NIC, then pings again",
            180,
            |lab| reboot(lab, 1),
        ),
        Scenario::new(
            "restart",
            "power-off and a new start, five times, the NIC named in five ways",
            300,
            |lab| restart(lab, 5),
        )
        .full(),
        Scenario::new(
            "kill",
            "the VMM is killed in the middle of traffic, a fresh start works",
            240,
            |lab| kill(lab, 1),
        ),
        Scenario::new(
            "terminate",
            "SIGTERM ends the VMM and releases the NIC",
            120,
            terminate,
        ),
        Scenario::new(
            "no-reboot",
            "a reset under --no-reboot ends with its own exit code",
            90,
            |lab| ends(lab, "", RESET).map(drop),
        )
        .strait_only(),
        Scenario::new(
            "triple-fault",
            "a guest that dies by a triple fault ends with its own exit code, and strait says why",
            90,
            |lab| {
                let said = ends(lab, "reboot=triple", PANIC)?;
                ensure!(said.contains("CPU 0 shut down"), "It does not say why: {said}");
                Ok(())
            },
        )
        .strait_only(),
        Scenario::new("reboot-50", "fifty reboots with the NIC", 3000, |lab| {
            reboot(lab, 50)
        })
        .full(),
        Scenario::new(
            "restart-50",
            "fifty power-offs and starts with the NIC",
            2400,
            |lab| restart(lab, 50),
        )
        .full(),
        Scenario::new(
            "kill-20",
            "twenty sudden deaths in the middle of traffic",
            2400,
            |lab| kill(lab, 20),
        )
        .full(),
    ]
}

fn reboot(lab: &Lab<'_>, times: u32) -> Result<()> {
    lab.run(&GuestConfig::with(&[&lab.take(NIC.at())?]), |guest| {
        for boot in 0..=times {
            if boot > 0 {
                guest.reboot()?;
            }
            lab.eth0().up(guest, "igb")?;
            lab.eth0()
                .ping(guest)
                .with_context(|| format!("After {boot} reboots"))?;
        }
        Ok(())
    })
}

fn restart(lab: &Lab<'_>, times: u32) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    for (round, name) in (1..=times).zip(names(lab, &nic).iter().cycle()) {
        ping_once(lab, name).with_context(|| format!("Start {round} of {times} with device {name}"))?;
    }
    Ok(())
}

fn kill(lab: &Lab<'_>, times: u32) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    for round in 1..=times {
        lab.start(&GuestConfig::with(&[&nic]), |guest| {
            guest.ready()?;
            lab.eth0().up(guest, "igb")?;
            lab.eth0().flood(guest)?;
            // Anywhere in the stream, never at the same place.
            sleep(Duration::from_millis(u64::from(round % 7) * 130));
            guest.kill()
        })
        .with_context(|| format!("Death {round} of {times}"))?;
    }
    ping_once(lab, &nic).context("A fresh start after the VMM was killed")
}

fn terminate(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    lab.start(&GuestConfig::with(&[&nic]), |guest| {
        guest.ready()?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        guest.signal(SIGTERM)?;
        guest.wait()
    })?;
    ping_once(lab, &nic).context("A fresh start after SIGTERM")
}

/// A guest that is told `words` and reboots; its VMM ends with this code. Returns what strait says.
fn ends(lab: &Lab<'_>, words: &str, code: i32) -> Result<String> {
    let config = GuestConfig {
        no_reboot: true,
        ..GuestConfig::default().told(words)
    };
    lab.start(&config, |guest| {
        guest.ready()?;
        guest.type_script("leave reboot")?;
        Ok(guest.expect_end(code)?.errors)
    })
}

/// The ways to name a device; QEMU knows one.
fn names(lab: &Lab<'_>, bdf: &str) -> Vec<String> {
    let short = bdf.trim_start_matches("0000:");
    match lab.vmm {
        Vmm::Qemu => vec![bdf.to_owned()],
        Vmm::Strait => vec![
            bdf.to_owned(),
            short.to_owned(),
            format!("pci_{}", bdf.replace([':', '.'], "_")),
            format!("/sys/bus/pci/devices/{bdf}"),
            format!("vfio-pci,host={short},id=net0"),
        ],
    }
}

fn ping_once(lab: &Lab<'_>, device: &str) -> Result<()> {
    lab.run(&GuestConfig::with(&[device]), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

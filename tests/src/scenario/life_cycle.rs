//! Ends and beginnings: reboot, power-off, sudden death, and the start after each.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::guest::{GuestConfig, Vmm};

/// What strait answers when the guest asks for a reset under `--no-reboot`.
const RESET: i32 = 32;
/// What strait answers when the guest dies.
const PANIC: i32 = 34;

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
        ),
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
            |lab| {
                let config = GuestConfig {
                    no_reboot: true,
                    ..lab.config("ask")
                };
                lab.with_guest(&config, |guest| {
                    guest.expect("ask")?;
                    guest.type_line("reboot")?;
                    guest.expect_end(RESET)
                })?;
                Ok(Verdict::Passed)
            },
        )
        .strait_only(),
        Scenario::new(
            "triple-fault",
            "a guest that dies by a triple fault ends with its own exit code, and strait says why",
            90,
            |lab| {
                let mut config = lab.config("ask");
                config.cmdline += " reboot=triple";
                config.no_reboot = true;
                let finished = lab.with_guest(&config, |guest| {
                    guest.expect("ask")?;
                    guest.type_line("reboot")?;
                    guest.expect_end(PANIC)
                })?;
                let said = finished.errors;
                ensure!(said.contains("CPU 0 shut down"), "It does not say why: {said}");
                Ok(Verdict::Passed)
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

fn reboot(lab: &Context, times: u32) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    lab.with_guest(&lab.config_with(&nic, "net,ping3,ask"), |guest| {
        for _ in 0..times {
            pinged(guest)?;
            guest.expect("ask")?;
            guest.type_line("reboot")?;
            guest.expect("init").context("The guest did not come back")?;
        }
        pinged(guest)?;
        guest.expect("ask")?;
        guest.type_line("poweroff")?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn restart(lab: &Context, times: u32) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    for (round, name) in (1..=times).zip(names(lab, &nic.bdf).iter().cycle()) {
        ping_once(lab, name).with_context(|| format!("Start {round} of {times} with device {name}"))?;
    }
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn kill(lab: &Context, times: u32) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    for round in 1..=times {
        lab.with_guest(&lab.config_with(&nic, "net,flood"), |guest| {
            guest.expect("flowing")?;
            // Anywhere in the stream, never at the same place.
            sleep(Duration::from_millis(u64::from(round % 7) * 130));
            guest.kill()
        })
        .with_context(|| format!("Death {round} of {times}"))?;
    }
    ping_once(lab, &nic.bdf).context("A fresh start after the VMM was killed")?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn terminate(lab: &Context) -> Result<Verdict> {
    const SIGTERM: i32 = 15;
    let nic = lab.bind_nic()?;
    lab.with_guest(&lab.config_with(&nic, "net,flood"), |guest| {
        guest.expect("flowing")?;
        guest.signal(SIGTERM)?;
        guest.wait()
    })?;
    ping_once(lab, &nic.bdf).context("A fresh start after SIGTERM")?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// The ways to name a device; QEMU knows one.
fn names(lab: &Context, bdf: &str) -> Vec<String> {
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

fn ping_once(lab: &Context, device: &str) -> Result<()> {
    let config = GuestConfig {
        devices: vec![device.to_owned()],
        ..lab.config("net,ping3")
    };
    lab.with_guest(&config, |guest| {
        pinged(guest)?;
        guest.expect_power_off()
    })?;
    Ok(())
}

fn pinged(guest: &mut Guest<'_>) -> Result<()> {
    let answered = guest.expect("ping")?;
    ensure!(answered == "3", "{answered} of 3 pings were answered");
    Ok(())
}

//! What the host does while a guest has a device: takes it back, or hears of its errors.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::agent::protocol::Finished;
use crate::guest::Guest;
use crate::guest::GuestConfig;
use crate::lab::Assigned;

/// Longer than a guest may keep a device that is asked for.
const UNBIND_LIMIT: Duration = Duration::from_secs(120);

/// The NIC that reports errors, and its name in the lab machine's monitor.
const REPORTER: (&str, &str) = ("0000:07:00.0", "reporter");

/// Parts of what the host's kernel says of an error that a device reports.
const REPORTED: [&str; 4] = ["AER: ", "PCIe Bus Error: ", "CmpltTO", "error status/mask="];

/// What strait answers when it cannot go on.
const ERROR: i32 = 1;

pub(super) fn scenarios() -> Vec<Scenario> {
    let with = |name, about, policy, kind, after| {
        Scenario::new(name, about, 240, move |lab| error(lab, policy, kind, after))
            .strait_only()
            .warns(&REPORTED)
    };
    vec![
        Scenario::new(
            "unbind",
            "the host unbinds a NIC in use: the guest lets go of it and goes on",
            300,
            |lab| unbind(lab, false, "gone", ""),
        )
        .strait_only(),
        Scenario::new(
            "unbind-viommu",
            "the same behind the guest's own IOMMU",
            300,
            |lab| unbind(lab, true, "gone", "intel_iommu=on"),
        )
        .strait_only()
        .full(),
        Scenario::new(
            "unbind-deaf",
            "the same with a guest that knows no hot plug: the NIC is pulled",
            300,
            |lab| unbind(lab, false, "pulled", "pcie_ports=compat"),
        )
        .strait_only()
        .full(),
        Scenario::new(
            "unbind-reboot",
            "the host unbinds a NIC and the guest reboots before it lets go: the NIC is pulled",
            240,
            unbind_reboot,
        )
        .strait_only(),
        with(
            "error-unplug",
            "a NIC reports an error: it is unplugged, the guest goes on",
            &[],
            &TIMEOUT,
            After::Unplugged,
        ),
        with(
            "error-fatal",
            "the same for a fatal one, for which the host resets the link under the guest",
            &[],
            &MALFORMED,
            After::Unplugged,
        )
        .full(),
        with(
            "error-ignore",
            "the same under --on-device-error ignore: the guest keeps it",
            &["--on-device-error", "ignore"],
            &TIMEOUT,
            After::Kept,
        )
        .full(),
        with(
            "error-stop",
            "a fatal one under --on-device-error stop: the guest ends",
            &["--on-device-error", "stop"],
            &MALFORMED,
            After::Ended,
        ),
    ]
}

/// `seen` is the guest's step that sees its NIC leave.
fn unbind(lab: &Context, viommu: bool, seen: &str, words: &str) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = lab.config_with(&nic, &format!("net,ping3,stream,ask,{seen},ask"));
    let config = GuestConfig {
        viommu,
        cmdline: format!("{} {words}", config.cmdline).trim_end().to_owned(),
        ..config
    };
    lab.with_guest(&config, |guest| {
        guest.expect("ask")?;
        let script = format!("echo {0} > /sys/bus/pci/devices/{0}/driver/unbind", nic.bdf);
        let unbound = lab.agent.exec(&script, UNBIND_LIMIT)?;
        ensure!(
            unbound.code == 0,
            "The host cannot unbind the NIC: {}",
            unbound.errors
        );
        let pid = guest.pid;
        let holds = format!("cat /proc/{pid}/maps; ls -l /proc/{pid}/fd");
        let held = lab.agent.sh(&holds)?;
        let still = held.lines().find(|line| line.contains("vfio-device"));
        ensure!(still.is_none(), "The VMM still has a part of the NIC: {still:?}");
        end_without_nic(guest)
    })?;
    nic.restore()?;
    works_again(lab)?;
    Ok(Verdict::Passed)
}

/// The guest keeps its NIC for some seconds after it is asked, and reboots meanwhile. The host has the NIC when
/// the next boot begins, not when somebody asks that one again.
fn unbind_reboot(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    lab.with_guest(&lab.config_with(&nic, "ask,gone,ask"), |guest| {
        guest.expect("ask")?;
        let driver = format!("/sys/bus/pci/devices/{}/driver", nic.bdf);
        lab.agent.sh(&format!(
            "(echo {} > {driver}/unbind) > /dev/null 2>&1 & sleep 1",
            nic.bdf
        ))?;
        guest.type_line("reboot")?;
        guest.expect("init").context("The guest did not come back")?;
        let state = lab
            .agent
            .sh(&format!("test -e {driver} && echo held || echo free"))?;
        ensure!(
            state.trim() == "free",
            "The host does not have the NIC back: {state}"
        );
        end_without_nic(guest)
    })?;
    nic.restore()?;
    works_again(lab)?;
    Ok(Verdict::Passed)
}

/// The guest finds its NIC gone and powers off.
fn end_without_nic(guest: &mut Guest<'_>) -> Result<Finished> {
    guest.type_line("go")?;
    guest.expect("gone")?;
    guest.expect("ask")?;
    guest.type_line("poweroff")?;
    guest.expect_power_off()
}

/// The NIC serves another guest.
fn works_again(lab: &Context) -> Result<()> {
    let nic = lab.bind_nic()?;
    lab.with_guest(&lab.config_with(&nic, "net,ping3"), |guest| {
        guest.expect("ping")?;
        guest.expect_power_off()
    })
    .context("A fresh start")?;
    nic.restore()
}

/// An error, as the lab machine's monitor calls it and as strait does.
struct Kind {
    monitor: &'static str,
    strait: &'static str,
}

/// A completion did not come in time: one access failed.
const TIMEOUT: Kind = Kind {
    monitor: "COMP_TIME",
    strait: "non-fatal CmpltTO",
};

/// A packet cannot be understood, which is fatal: the host trusts no register of the device, counts nothing, and
/// resets the link under it (Linux, drivers/pci/pcie/aer.c).
const MALFORMED: Kind = Kind {
    monitor: "MALF_TLP",
    strait: "an uncorrectable error, which the host does not name",
};

/// What becomes of a guest whose device reported an error.
#[derive(Debug, Clone, Copy)]
enum After {
    Unplugged,
    Kept,
    Ended,
}

fn error(lab: &Context, policy: &'static [&'static str], kind: &Kind, after: After) -> Result<Verdict> {
    let (bdf, id) = REPORTER;
    let nic = Assigned::bind(lab.agent, bdf)?;
    let steps = match after {
        After::Unplugged => "net,ping3,ask,gone,ask",
        After::Kept | After::Ended => "net,ping3,ask,ping3",
    };
    let words = "lab.server=10.0.6.2 lab.drivers=virtio_pci,virtio_net";
    let config = GuestConfig {
        initrd: "devices",
        devices: vec![nic.bdf.clone()],
        cmdline: format!("{} {words}", lab.cmdline(steps, "10.0.6.15")),
        more: policy,
        ..GuestConfig::default()
    };
    let finished = lab.with_guest(&config, |guest| {
        guest.expect("ask")?;
        lab.host.monitor()?.inject_error(id, kind.monitor)?;
        match after {
            After::Unplugged => end_without_nic(guest),
            After::Kept => {
                guest.type_line("go")?;
                guest.expect("ping")?;
                guest.expect_power_off()
            }
            After::Ended => guest.expect_end(ERROR),
        }
    })?;
    let words = format!("{bdf}: the device reports {}", kind.strait);
    ensure!(
        finished.errors.contains(&words),
        "It does not say `{words}`: {}",
        finished.errors
    );
    nic.restore()?;
    Ok(Verdict::Passed)
}

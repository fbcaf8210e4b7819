//! The control socket, as QEMU's tools use it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig, Vmm};
use crate::lab::devices::NIC;

/// Where the VMM listens, in the lab host.
pub(super) const SOCKET: &str = "/run/lab/qmp";

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How long the guest stands still.
const PAUSE: Duration = Duration::from_secs(10);

/// The guest's uptime is in hundredths of a second.
const CLOCK_TICK: f64 = 0.01;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "control-pause",
            "a guest is paused with data on their way: its clock stands still, and it goes on",
            240,
            pause,
        ),
        Scenario::new(
            "control-pci",
            "a client is told where a NIC's BARs are in the guest, and how often it interrupted",
            180,
            pci,
        ),
        Scenario::new(
            "control-reset",
            "a guest is reset and ended through the socket",
            180,
            reset,
        ),
        Scenario::new(
            "control-powerdown",
            "the guest's power button is pressed, by a client and by a signal; one that does not hear it is ended",
            300,
            powerdown,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "control-ctl",
            "`strait ctl` finds a guest by its name, pauses, resets and ends it",
            240,
            ctl,
        )
        .strait_only(),
    ]
}

fn pause(lab: &Lab<'_>) -> Result<()> {
    let config = with_socket(GuestConfig::with(&[&lab.take(NIC.at())?]));
    lab.run(&config, |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        let start = Instant::now();
        let before = uptime(guest)?;
        let said = ask(lab, &["stop", "query-status"])?;
        ensure!(said.contains("\"paused\""), "The VMM says {said}");
        sleep(PAUSE);
        let said = ask(lab, &["cont", "query-status"])?;
        ensure!(said.contains("\"running\""), "The VMM says {said}");
        let after = uptime(guest)?;
        let (inside, outside) = (after - before, start.elapsed().as_secs_f64());
        ensure!(
            inside <= outside - PAUSE.as_secs_f64() + CLOCK_TICK,
            "{inside} s passed in a guest that stood still for {PAUSE:?} of {outside} s"
        );
        guest.sh("killall wget; sleep 1")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        let complaints = guest.sh("dmesg | grep -iE 'lockup|stall|unstable|timed out' || true")?;
        ensure!(complaints.is_empty(), "The guest's kernel says {complaints}");
        Ok(())
    })
}

fn pci(lab: &Lab<'_>) -> Result<()> {
    let config = with_socket(GuestConfig::with(&[&lab.take(NIC.at())?]));
    lab.run(&config, |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        let tree: Value = serde_json::from_str(&ask(lab, &["query-pci"])?)?;
        let nic = of_the_nic(&tree[0]["devices"]).with_context(|| format!("There is no NIC in {tree}"))?;
        let seen = guest.sh("cat $(function_of 0x8086:0x10c9)/resource")?;
        let seen: Vec<&str> = seen.lines().collect();
        let told = nic["regions"].as_array().context("There are no regions")?;
        let answering = told.iter().filter(|region| region["address"] != -1);
        ensure!(answering.clone().count() >= 2, "Of a NIC at work {nic} is told");
        for region in answering {
            let number = |member: &str| region[member].as_u64().with_context(|| format!("{member} in {region}"));
            let (start, size) = (number("address")?, number("size")?);
            let wanted = format!("{start:#018x} {:#018x} ", start + size - 1);
            let line = seen.get(number("bar")? as usize).copied().unwrap_or_default();
            ensure!(line.starts_with(&wanted), "{region} is told, and the guest has it at {line}");
        }
        if lab.vmm == Vmm::Qemu {
            return Ok(());
        }
        let strait: Value = serde_json::from_str(&ask(lab, &["x-query-strait"])?)?;
        let device = &strait["devices"][0];
        let interrupts = device["interrupts"].as_array().context("No interrupts are told")?;
        let came = interrupts.iter().filter(|vector| vector["count"].as_u64() > Some(0));
        ensure!(came.count() >= 2, "Of a NIC that pinged {device} is told");
        ensure!(device["bars"].to_string().contains("trapped"), "No BARs are told: {device}");
        Ok(())
    })
}

/// What is told of the lab's NIC, on whichever bus it is.
fn of_the_nic(devices: &Value) -> Option<&Value> {
    devices.as_array()?.iter().find_map(|device| {
        let is_it = device["id"]["vendor"] == 0x8086 && device["id"]["device"] == 0x10c9;
        is_it.then_some(device).or_else(|| of_the_nic(&device["pci_bridge"]["devices"]))
    })
}

fn reset(lab: &Lab<'_>) -> Result<()> {
    lab.start(&with_socket(GuestConfig::default()), |guest| {
        guest.ready()?;
        ask(lab, &["stop", "system_reset", "cont"])?;
        guest.ready().context("After a reset while it was paused")?;
        ask(lab, &["system_reset"])?;
        guest.ready().context("After a reset while it ran")?;
        ask(lab, &["quit"])?;
        guest.expect_end(0).map(drop)
    })
}

fn ctl(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        more: &["--name", "web"],
        ..GuestConfig::with(&[&lab.take(NIC.at())?])
    };
    lab.start(&config, |guest| {
        guest.ready()?;
        lab.eth0().up(guest, "igb")?;
        let place = field(lab, "ctl info --json", "/devices/0/guest")?;
        let driver = guest.sh(&format!("driver_of /sys/bus/pci/devices/{place}"))?;
        ensure!(driver == "igb", "strait ctl says that igb's device is {place}, which has {driver:?}");
        lab.agent.sh("strait ctl web pause")?;
        expect_status(lab, "paused")?;
        lab.agent.sh("strait ctl web resume")?;
        expect_status(lab, "running")?;
        lab.eth0().ping(guest)?;
        lab.agent.sh("strait ctl reset")?;
        guest.ready().context("After `strait ctl reset`")?;
        let code = lab.agent.sh("strait ctl nobody pause 2>&1 || echo $?")?;
        ensure!(code.trim_end().ends_with("\n3"), "`strait ctl` without such a guest says {code}");
        // Nothing of it is left when the command returns, but for what its parent is still to be told (a zombie).
        lab.agent.sh("strait ctl web quit; for p in $(pidof strait); do grep -q '^State:.Z' /proc/$p/status; done")?;
        let left = lab.agent.sh("strait ctl list; ls /run/strait")?;
        ensure!(left.is_empty(), "A guest that ended left {left}");
        guest.expect_end(0).map(drop)
    })
}

fn expect_status(lab: &Lab<'_>, wanted: &str) -> Result<()> {
    let found = field(lab, "ctl list --json", "/0/status")?;
    ensure!(found == wanted, "The guest is {found}, not {wanted}");
    Ok(())
}

/// A string of what `strait` prints in JSON.
fn field(lab: &Lab<'_>, command: &str, pointer: &str) -> Result<String> {
    let text = lab.agent.sh(&format!("strait {command}"))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("This is no JSON: {text}"))?;
    let found = value.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("There is no {pointer} in {text}"))?.to_owned())
}

pub(super) fn with_socket(config: GuestConfig) -> GuestConfig {
    GuestConfig {
        qmp: Some(SOCKET),
        ..config
    }
}

/// Powers the guest off when its button tells of a press, as a service of its own would.
pub(super) const HEAR: &str = "load button evdev
    wait_until 20 test -e /dev/input/event0 || fail there is no button
    (dd if=/dev/input/event0 of=/dev/null bs=24 count=1; poweroff -f) > /dev/null 2>&1 &";

fn powerdown(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        initrd: "devices",
        ..with_socket(GuestConfig::default())
    };
    lab.start(&config, |guest| {
        guest.ready()?;
        guest.sh(HEAR)?;
        ask(lab, &["system_powerdown", "event:POWERDOWN"])?;
        guest.expect_end(0).map(drop)
    })?;
    let by_signal = |seconds| GuestConfig {
        initrd: "devices",
        more: seconds,
        ..GuestConfig::default()
    };
    let finished = lab.start(&by_signal(&["--stop-timeout", "600"]), |guest| {
        guest.ready()?;
        guest.sh(HEAR)?;
        guest.signal(SIGTERM)?;
        guest.expect_end(0)
    })?;
    ensure!(!finished.errors.contains("in its time"), "The VMM says {}", finished.errors);
    let finished = lab.start(&by_signal(&["--stop-timeout", "3"]), |guest| {
        guest.ready()?;
        guest.signal(SIGTERM)?;
        guest.expect_end(0)
    })?;
    ensure!(finished.errors.contains("in its time"), "The VMM says {}", finished.errors);
    lab.start(&by_signal(&["--stop-timeout", "600"]), |guest| {
        guest.ready()?;
        guest.signal(SIGTERM)?;
        // Of another kind: two of one kind that are pending together are one.
        guest.signal(SIGINT)?;
        guest.expect_end(0).map(drop)
    })
}

/// Says words of `lab qmp` and returns what follows from each, a line each.
pub(super) fn ask(lab: &Lab<'_>, words: &[&str]) -> Result<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    lab.agent.sh(&format!("lab qmp {SOCKET} {}", quoted.join(" ")))
}

fn uptime(guest: &mut Guest<'_>) -> Result<f64> {
    let text = guest.sh("cut -d ' ' -f 1 /proc/uptime")?;
    text.parse().context("The guest's uptime is no number")
}

//! Resets of devices: how each is done, and what is left of a guest's work after one.

use anyhow::{Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::GuestConfig;
use crate::lab::{Assigned, EDU, NIC};

/// The USB controller.
const XHCI: &str = "0000:06:00.0";

/// The NIC with two functions, neither of which can reset itself.
const PAIR: [&str; 2] = ["0000:05:00.0", "0000:05:00.1"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "reset-methods",
            "four kinds of devices over a reboot: each is reset in its own way, which is said once",
            240,
            methods,
        )
        .strait_only(),
        Scenario::new(
            "reset",
            "the guest resets its NIC, five times under traffic",
            240,
            |lab| resets(lab, 5, true),
        ),
        Scenario::new("reset-200", "two hundred resets of an idle NIC", 2400, |lab| {
            resets(lab, 200, false)
        })
        .full(),
        Scenario::new("reset-traffic-50", "fifty resets under traffic", 1200, |lab| {
            resets(lab, 50, true)
        })
        .full(),
    ]
}

fn methods(lab: &Context) -> Result<Verdict> {
    let names = [NIC, XHCI, EDU, PAIR[0], PAIR[1]];
    let devices = names.map(|name| Assigned::bind(lab.agent, name));
    let devices = devices.into_iter().collect::<Result<Vec<_>>>()?;
    let config = GuestConfig {
        devices: names.map(str::to_owned).to_vec(),
        more: &["-v"],
        ..lab.config("ask")
    };
    let finished = lab.with_guest(&config, |guest| {
        guest.expect("ask")?;
        guest.type_line("reboot")?;
        guest.expect("ask")?;
        guest.type_line("poweroff")?;
        guest.expect_power_off()
    })?;
    let [first, second] = PAIR;
    let sentences = [
        format!("{NIC} is reset by the kernel with flr"),
        format!("{XHCI} is reset by the kernel with bus"),
        format!("{EDU} has no way to be reset"),
        format!("{first} is reset with its bus, that is {first}, {second}"),
        format!("{second} is reset with its bus, that is {first}, {second}"),
    ];
    for sentence in &sentences {
        let times = finished.errors.matches(sentence.as_str()).count();
        ensure!(times == 1, "It says `{sentence}` {times} times, not once");
    }
    ensure!(
        !finished.errors.contains("cannot be reset"),
        "A reset failed: {}",
        finished.errors
    );
    devices.into_iter().try_for_each(Assigned::restore)?;
    Ok(Verdict::Passed)
}

/// The guest looks after each reset that its NIC is silent, and that its driver can start over.
fn resets(lab: &Context, times: u32, with_traffic: bool) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = lab.config_with(&nic, "net,resets,ping3,fetch");
    let traffic = if with_traffic { " lab.traffic=1" } else { "" };
    let config = GuestConfig {
        initrd: "devices",
        cmdline: format!("{} lab.drivers=igb lab.resets={times}{traffic}", config.cmdline),
        ..config
    };
    lab.with_guest(&config, |guest| {
        let done: u32 = guest.expect("resets")?.parse()?;
        ensure!(done == times, "{done} resets were made, expected {times}");
        let answered = guest.expect("ping")?;
        ensure!(answered == "3", "{answered} of 3 pings were answered");
        lab.check_hash(&guest.expect("fetch")?)?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

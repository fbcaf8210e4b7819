//! QEMU's own tools at the control socket: qmp-shell, and a program on its library.

use anyhow::{Result, ensure};

use super::control::{SOCKET, with_socket};
use super::hotplug::arguments;
use super::{Lab, Scenario, Skip};
use crate::guest::GuestConfig;
use crate::supplies::qmp_client::FOLDER;

/// A program of a user's.
const PROGRAM: &str = include_str!("../../../resources/lab/qmp-client.py");

/// What is typed at qmp-shell; for an empty line it shows the events that came.
const TYPED: &str = "query-status\nquery-pci\nstop\nquery-status\ncont\n\nno-such-command\n";

/// What it shows of that.
const SHOWN: [&str; 6] = [
    "Connected to",
    "\"running\"",
    "\"regions\"",
    "\"paused\"",
    "RESUME",
    "CommandNotFound",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "control-qmp-shell",
            "QEMU's qmp-shell and its library for Python: a guest stands still, gets a device, loses it and ends",
            400,
            drive,
        )
        .full()
        .with_qmp_client(),
    ]
}

fn drive(lab: &Lab<'_>) -> Result<()> {
    let has_client = lab.agent.sh(&format!("[ -d /{FOLDER}/qemu/qmp ]")).is_ok();
    ensure!(has_client, Skip("the lab has no qemu.qmp".to_owned()));
    let nic = lab.take_virtual_function()?;
    let config = with_socket(GuestConfig {
        slots: 1,
        ..GuestConfig::default()
    });
    let python = format!("export HOME=/run/lab PYTHONPATH=/{FOLDER}; python3");
    lab.start(&config, |guest| {
        guest.ready()?;
        let shell = format!("{python} -m qemu.qmp.qmp_shell {SOCKET} << 'END'\n{TYPED}END");
        let said = lab.agent.sh(&shell)?;
        for part in SHOWN {
            ensure!(said.contains(part), "qmp-shell does not show {part}, but {said}");
        }
        let device = arguments(lab, &nic, "nic");
        let program = format!("{python} - {SOCKET} '{device}' << 'END'\n{PROGRAM}END");
        let said = lab.agent.sh(&program)?;
        ensure!(said.ends_with("all is done\n"), "The program says {said}");
        guest.expect_end(0).map(drop)
    })
}

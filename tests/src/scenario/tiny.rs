//! Guests that do what no kernel does: each ends with its exit code, and the host is as before.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::machine_code as code;
use crate::guest::svm_code;
use crate::lab::devices::NIC;

/// Thousands of exits under emulation.
const LIMIT: Duration = Duration::from_secs(90);

/// One guest.
#[derive(Clone, Copy)]
pub(super) struct Tiny {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) program: fn() -> Vec<u8>,
    pub(super) arguments: &'static str,
    /// Whether it gets the NIC.
    pub(super) with_nic: bool,
    /// What it writes to its serial port.
    pub(super) says: &'static str,
    pub(super) code: i32,
}

pub(super) const SURVIVES: Tiny = Tiny {
    name: "",
    about: "",
    program: Vec::new,
    arguments: "",
    with_nic: false,
    says: "K",
    code: 0,
};

const ENDS: Tiny = Tiny { says: "", ..SURVIVES };

/// Needs real mode of the CPU, and of KVM that IPIs find each vCPU from the start.
pub(super) const SECOND_CPU: Tiny = Tiny {
    name: "tiny-cpus",
    about: "a guest starts a second CPU, and asks nothing else of its local APIC",
    program: code::second_cpu,
    arguments: "--cpus 2",
    says: "AK",
    ..SURVIVES
};

pub(super) const GUESTS: [Tiny; 10] = [
    SECOND_CPU,
    Tiny {
        name: "tiny-ports",
        about: "a guest tries every port, by 1, 2 and 4 bytes",
        program: || [code::SWEEP_PORTS, code::SAY_K, code::POWER_OFF].concat(),
        ..SURVIVES
    },
    Tiny {
        name: "tiny-memory",
        about: "a guest reads and writes device memory at odd addresses",
        program: || [code::SWEEP_MEMORY, code::SAY_K, code::POWER_OFF].concat(),
        with_nic: true,
        ..SURVIVES
    },
    Tiny {
        name: "tiny-config",
        about: "a guest writes ones and zeros to all configuration registers, the NIC's too",
        program: || [code::SWEEP_CONFIG, code::SAY_K, code::POWER_OFF].concat(),
        with_nic: true,
        ..SURVIVES
    },
    Tiny {
        name: "tiny-strings",
        about: "a guest uses string instructions on ports",
        program: || [code::STRINGS, code::SAY_K, code::POWER_OFF].concat(),
        says: "HELLOK",
        ..SURVIVES
    },
    Tiny {
        name: "tiny-reset",
        about: "the reset register at 0xCF9, then nothing more",
        program: || [code::CHIPSET_RESET].concat(),
        arguments: "--no-reboot",
        code: 32,
        ..ENDS
    },
    Tiny {
        name: "tiny-nested-reset",
        about: "a reset by a guest's own guest: the guest starts again as after power-on",
        program: svm_code::reset_from_a_guest,
        ..SURVIVES
    },
    Tiny {
        name: "tiny-keyboard",
        about: "the keyboard controller's reset",
        program: || [code::KEYBOARD_RESET].concat(),
        arguments: "--no-reboot",
        code: 32,
        ..ENDS
    },
    Tiny {
        name: "tiny-panic",
        about: "a reported panic ends with its own code",
        program: || [code::PANIC].concat(),
        code: 34,
        ..ENDS
    },
    Tiny {
        name: "tiny-triple",
        about: "a triple fault ends with its own code",
        program: || [code::TRIPLE_FAULT].concat(),
        code: 34,
        ..ENDS
    },
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario =
        |guest: Tiny| Scenario::new(guest.name, guest.about, 150, move |lab| run(lab, &guest)).strait_only();
    GUESTS.map(scenario).into()
}

pub(super) fn run(lab: &Lab<'_>, guest: &Tiny) -> Result<()> {
    let device = match guest.with_nic {
        true => format!("--device {}", lab.take(NIC.at())?),
        false => String::new(),
    };
    let limit = lab.host.pace.stretch(LIMIT);
    let script = format!(
        "printf '{}' > /tmp/tiny; timeout {} strait run --kernel /tmp/tiny --memory 64M {} {device} < /dev/null",
        code::octal(&code::elf(&(guest.program)())),
        limit.as_secs(),
        guest.arguments
    );
    let finished = lab.script_within(&script, limit * 2)?;
    ensure!(
        finished.code == guest.code,
        "It ended with code {}, expected {}: {}",
        finished.code,
        guest.code,
        finished.errors
    );
    let said = finished.output.replace('\0', "");
    ensure!(
        said.ends_with(guest.says),
        "The guest said {said:?}, expected {:?}",
        guest.says
    );
    Ok(())
}

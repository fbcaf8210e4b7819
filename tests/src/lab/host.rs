//! The Linux in the lab machine, once it answers.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::qemu::{self, MONITOR_SOCKET};
use super::{Console, Kind, Logs, Machine, Monitor, Pace, Share, build_program, devices};
use crate::agent::Agent;
use crate::supplies::Supplies;

/// For hangs. Six seconds are usual on a quiet machine, three minutes were seen on a very busy one.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// A booted lab host and the agent in it.
pub(crate) struct LabHost {
    /// First, so that it is dropped before the machine it speaks to.
    pub(crate) agent: Agent,
    /// How fast it was when it came up.
    pub(crate) pace: Pace,
    console: PathBuf,
    machine: Machine,
    share: Share,
}

impl LabHost {
    /// Boots the lab host. One that never came up is tried once more, and said.
    pub(crate) fn boot(supplies: &Supplies, logs: &Logs, strait: Option<&Path>, kind: Kind) -> Result<Self> {
        match Self::try_boot(supplies, logs, strait, kind) {
            Ok(host) => Ok(host),
            Err(error) => {
                eprintln!("The lab host did not come up ({error:#}), trying once more");
                Self::try_boot(supplies, logs, strait, kind).context("The lab host did not come up twice")
            }
        }
    }

    /// Connects to the monitor of the machine under it.
    pub(crate) fn monitor(&self) -> Result<Monitor> {
        Monitor::open(&self.share.path(MONITOR_SOCKET))
    }

    /// A file of the folder that it shares with the lab machine.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.share.path(name)
    }

    /// Builds one of the project's programs, and puts it beside strait.
    pub(crate) fn take_program(&self, name: &str) -> Result<()> {
        let program = build_program(name)?;
        let copied = fs::copy(&program, self.file(&format!("bin/{name}")));
        copied
            .map(drop)
            .with_context(|| format!("Cannot copy {} for the lab host", program.display()))
    }

    /// CPU time that the machine under it has used.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.machine.cpu_time()
    }

    /// The log of its serial console.
    pub(crate) fn console(&self) -> &Path {
        &self.console
    }

    /// Adds to the console's log what the machine under a host that does not answer says of its CPUs.
    pub(crate) fn write_post_mortem(&self) {
        let said = self.monitor().and_then(|mut monitor| monitor.post_mortem());
        let text = said.unwrap_or_else(|error| format!("{error:#}"));
        let log = fs::OpenOptions::new().append(true).open(&self.console);
        let _ = log.and_then(|mut log| write!(log, "\n--- the machine's monitor ---\n{text}\n"));
    }

    fn try_boot(supplies: &Supplies, logs: &Logs, strait: Option<&Path>, kind: Kind) -> Result<Self> {
        let start = Instant::now();
        let share = Share::new(supplies, strait, kind)?;
        let (console, emulator) = (logs.fresh("host-console"), logs.fresh("host-machine"));
        let log = Console::Log {
            kernel: console.clone(),
            emulator: emulator.clone(),
        };
        let mut machine = Machine::start(supplies, &share, kind, &log)?;
        let port = machine
            .connect()
            .with_context(|| format!("See {}", emulator.display()))?;
        let agent = Agent::new(port, machine.carrier())?;
        agent
            .is_up(BOOT_LIMIT)
            .with_context(|| format!("See {}", console.display()))?;
        plug(&agent, kind, &share).context("Cannot plug the devices in")?;
        let pace = Pace::measure(&agent)?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("  The lab host is up ({seconds:.1} s), {pace}");
        Ok(Self {
            pace,
            agent,
            console,
            machine,
            share,
        })
    }
}

/// Plugs in what this kind of machine does not have from its start, and waits until the lab host's drivers have it.
fn plug(agent: &Agent, kind: Kind, share: &Share) -> Result<()> {
    let commands = qemu::plugged(kind, share);
    if commands.is_empty() {
        return Ok(());
    }
    let mut monitor = Monitor::open(&share.path(MONITOR_SOCKET))?;
    commands.iter().try_for_each(|command| monitor.plug(command))?;
    let functions: Vec<&str> = devices::ALL
        .iter()
        .flat_map(|device| device.functions)
        .copied()
        .collect();
    let wait = "for i in $(seq 600); do [ -e /sys/bus/pci/devices/$device ] && break; sleep 0.1; done
        [ -e /sys/bus/pci/devices/$device ] || { echo $device does not come; exit 1; }";
    agent
        .sh(&format!("for device in {}; do {wait}; done", functions.join(" ")))
        .map(drop)
}

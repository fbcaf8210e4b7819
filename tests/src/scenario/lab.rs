//! What a scenario works with.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::Agent;
use crate::agent::protocol::Finished;
use crate::guest::{Boot, Guest, GuestConfig, Interface, Vmm, judge};
use crate::lab::{Assigned, LabHost, Logs, Outside};
use crate::supplies::root::Root;

/// Why a scenario cannot be tried here; it is returned as an error, and counted as skipped.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The lab as a scenario sees it.
pub(crate) struct Lab<'a> {
    pub(crate) agent: &'a Agent,
    /// The machine that the agent is in.
    pub(crate) host: &'a LabHost,
    pub(crate) vmm: Vmm,
    pub(crate) outside: &'a Outside,
    /// The tree that the lab host has as its root.
    pub(crate) root: &'a Root,
    pub(crate) logs: &'a Logs,
    /// The scenario's name, under which its consoles are kept.
    pub(crate) name: &'a str,
    pub(crate) deadline: Instant,
    /// Guest series that this Debian has.
    pub(crate) series: &'a [&'static str],
    pub(crate) boot: Boot,
    /// Devices that were taken, in that order.
    pub(crate) taken: RefCell<Vec<Assigned<'a>>>,
}

impl<'a> Lab<'a> {
    /// Takes a function from its driver and gives it to vfio-pci, until the scenario ends. Returns its address.
    pub(crate) fn take(&self, function: &str) -> Result<String> {
        self.keep(Assigned::bind(self.agent, function)?)
    }

    /// Makes a virtual function of the NIC and takes it.
    pub(crate) fn take_virtual_function(&self) -> Result<String> {
        self.keep(Assigned::bind_virtual_function(self.agent)?)
    }

    /// Gives back what was taken, the last first: the functions of a group only go together.
    pub(crate) fn give_back(&self) -> Result<()> {
        let taken = self.taken.take();
        taken.into_iter().rev().try_for_each(Assigned::restore)
    }

    /// The NIC's interface in a guest that has no other.
    pub(crate) fn eth0(&self) -> Interface<'a> {
        Interface::new(self.outside, "eth0", "10.0.2")
    }

    /// An interface in one of the lab machine's networks.
    pub(crate) fn interface(&self, name: &'static str, network: &'static str) -> Interface<'a> {
        Interface::new(self.outside, name, network)
    }

    /// Runs `work` on a freshly started guest that takes commands, then powers it off; the VMM must end with code 0.
    pub(crate) fn run<T>(
        &self,
        config: &GuestConfig,
        work: impl FnOnce(&mut Guest<'_>) -> Result<T>,
    ) -> Result<T> {
        self.start(config, |guest| {
            guest.ready()?;
            let result = work(guest)?;
            guest.power_off()?;
            Ok(result)
        })
    }

    /// Starts a guest and lets `work` do the rest, up to its end. Its drivers must not have waited in vain; its
    /// console is kept, whatever happens.
    pub(crate) fn start<T>(
        &self,
        config: &GuestConfig,
        work: impl FnOnce(&mut Guest<'_>) -> Result<T>,
    ) -> Result<T> {
        let command = self.vmm.command(config, &self.boot.cmdline(&config.words));
        let line = command.join(" ");
        let mut guest = Guest::start(self.agent, command, self.deadline, self.boot.is_loud)?;
        let result = work(&mut guest);
        let mut picture = String::new();
        if result.is_err() {
            picture = guest.picture();
            guest.ask_for_last_words();
        }
        self.log(&format!("{line}\n\n{}{picture}", guest.transcript()));
        judge(result, guest.console())
    }

    /// Runs a shell script on the lab host, for as long as the scenario may take, and keeps what it prints.
    pub(crate) fn script(&self, script: &str) -> Result<Finished> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.script_within(script, left)
    }

    /// The same with a limit of its own.
    pub(crate) fn script_within(&self, script: &str, limit: Duration) -> Result<Finished> {
        let finished = self.agent.exec(script, limit)?;
        let Finished {
            code, output, errors, ..
        } = &finished;
        self.log(&format!("{script}\n\ncode {code}\n{output}\n{errors}"));
        Ok(finished)
    }

    /// The scenario cannot be tried where the lab host has less memory than this free, and half a gibibyte.
    pub(crate) fn needs_memory(&self, mebibytes: u64) -> Result<()> {
        let available = self.agent.sh("awk '/MemAvailable/ {print $2}' /proc/meminfo")?;
        let available_mib = available.trim().parse::<u64>()? >> 10;
        ensure!(
            available_mib >= mebibytes + 512,
            Skip(format!("the lab host has only {available_mib} MiB free"))
        );
        Ok(())
    }

    /// The scenario cannot be tried where Debian has no such kernel, or a further one could not be fetched.
    pub(crate) fn needs_kernel(&self, series: &str) -> Result<()> {
        ensure!(
            self.series.contains(&series),
            Skip(format!("the lab has no {series} kernel"))
        );
        Ok(())
    }

    /// Adds to the scenario's log.
    pub(crate) fn log(&self, text: &str) {
        self.logs.append(&format!("{}.log", self.name), text);
    }

    fn keep(&self, assigned: Assigned<'a>) -> Result<String> {
        let bdf = assigned.bdf.clone();
        self.taken
            .try_borrow_mut()
            .context("Devices are being given back")?
            .push(assigned);
        Ok(bdf)
    }
}

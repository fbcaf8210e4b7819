//! What a scenario works with.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::guest::{Guest, judge};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::Outside;
use crate::lab::{Assigned, LabHost, Logs, NIC};

/// The lab as a scenario sees it.
pub(crate) struct Context<'a> {
    pub(crate) agent: &'a Agent,
    /// The machine that the agent is in.
    pub(crate) host: &'a LabHost,
    pub(crate) vmm: Vmm,
    pub(crate) outside: &'a Outside,
    pub(crate) logs: &'a Logs,
    /// The scenario's name, under which its consoles are kept.
    pub(crate) name: &'a str,
    pub(crate) deadline: Instant,
    /// Guest series that this Debian has.
    pub(crate) series: &'a [&'static str],
    /// Words that the user adds to every guest's command line.
    pub(crate) extra_cmdline: &'a str,
    /// Show consoles while they are written.
    pub(crate) live: bool,
}

impl Context<'_> {
    /// A guest that does `steps`, see resources/lab/guest-init.sh.
    pub(crate) fn config(&self, steps: &str) -> GuestConfig {
        GuestConfig {
            cmdline: self.cmdline(steps, "10.0.2.15"),
            ..GuestConfig::default()
        }
    }

    /// A guest with a device that does `steps`.
    pub(crate) fn config_with(&self, device: &Assigned<'_>, steps: &str) -> GuestConfig {
        GuestConfig {
            devices: vec![device.bdf.clone()],
            ..self.config(steps)
        }
    }

    /// The kernel command line for some steps.
    pub(crate) fn cmdline(&self, steps: &str, address: &str) -> String {
        let quiet = if self.live { "" } else { " quiet" };
        let line = format!(
            "console=ttyS0 panic=-1{quiet} iomem=relaxed lab.do={steps} lab.address={address} lab.port={} lab.pace={} {}",
            self.outside.port,
            self.host.pace.factor(),
            self.extra_cmdline
        );
        line.trim_end().to_owned()
    }

    /// Gives the NIC's physical function to vfio-pci.
    pub(crate) fn bind_nic(&self) -> Result<Assigned<'_>> {
        Assigned::bind(self.agent, NIC)
    }

    /// Runs `work` on a freshly started guest, whose drivers must not have waited in vain, and keeps the console,
    /// whatever happens.
    pub(crate) fn with_guest<T>(
        &self,
        config: &GuestConfig,
        work: impl FnOnce(&mut Guest<'_>) -> Result<T>,
    ) -> Result<T> {
        let command = self.vmm.command(config);
        let line = command.join(" ");
        let mut guest = Guest::start(self.agent, command, self.deadline, self.live)?;
        let result = work(&mut guest);
        let result = judge(result, guest.console());
        let picture = result.as_ref().err().map(|_| guest.picture());
        let text = format!("{line}\n\n{}{}", guest.transcript(), picture.unwrap_or_default());
        self.logs.append(&format!("{}.log", self.name), &text);
        result
    }

    /// Every vector of a NIC has seen interrupts.
    pub(crate) fn check_irqs(&self, irqs: &[(String, Vec<u64>)], vectors: usize) -> Result<()> {
        ensure!(
            irqs.len() >= vectors,
            "The guest has {} interrupt vectors for its NIC, expected at least {vectors}",
            irqs.len()
        );
        for (name, counts) in irqs {
            let total: u64 = counts.iter().sum();
            ensure!(total > 0, "The vector {name} had no interrupt");
        }
        Ok(())
    }

    /// What arrived is what was sent.
    pub(crate) fn check_hash(&self, hash: &str) -> Result<()> {
        ensure!(
            hash == self.outside.sha256,
            "32 MiB arrived with SHA-256 {hash}, expected {}",
            self.outside.sha256
        );
        Ok(())
    }
}

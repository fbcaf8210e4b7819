//! Strait beside QEMU: the same kernel, initramfs and device, one after the other in one lab host,
//! round after round, so that whatever disturbs the machine disturbs both.

mod figures;
mod process;
mod report;
mod trace;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::guest::Guest;
use crate::lab::{Assigned, Host, LabHost, Logs, NIC, build_strait};
use crate::supplies::Supplies;
use crate::vmm::{GuestConfig, Vmm};

use figures::{Figures, Round};
use process::Process;
use trace::Trace;

/// A boot takes ten seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(300);

/// What the guest does: load the NIC's driver and power off.
const STEPS: &str = "load";

/// The same, with a pause to be looked at.
const WATCHED_STEPS: &str = "load,ask";

/// Runs the benchmark and writes the table and the JSON file.
pub(crate) fn bench(rounds: u32, vmms: &[Vmm]) -> Result<ExitCode> {
    let supplies = Supplies::prepare()?;
    let strait = vmms.contains(&Vmm::Strait).then(build_strait).transpose()?;
    let logs = Logs::open()?;
    let host = LabHost::boot(&supplies, &logs, strait.as_deref(), Host::Whole)?;
    let nic = Assigned::bind(&host.agent, NIC)?;
    let bench = Bench {
        agent: &host.agent,
        nic: &nic,
        logs: &logs,
    };
    let mut figures = Figures::default();
    for vmm in vmms {
        // Also the warm-up: it reads the files into the host's cache.
        let process = bench
            .look(*vmm)
            .with_context(|| format!("Looking at {} failed", vmm.name()))?;
        figures.set_process(*vmm, process);
    }
    for round in 1..=rounds {
        for vmm in vmms {
            let result = bench
                .measure(*vmm)
                .with_context(|| format!("Round {round} of {} failed", vmm.name()))?;
            eprintln!(
                "  round {round} of {rounds}, {}: {:.2} s",
                vmm.name(),
                result.wall_s
            );
            figures.add(*vmm, result);
        }
    }
    nic.restore()?;
    report::print(&figures);
    let path = logs.path("bench.json");
    report::write(&figures, &path)?;
    println!("\nAll rounds: {}", path.display());
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    agent: &'a Agent,
    nic: &'a Assigned<'a>,
    logs: &'a Logs,
}

impl<'a> Bench<'a> {
    /// One run that is left alone, but for the kernel's own counting.
    fn measure(&self, vmm: Vmm) -> Result<Round> {
        let trace = Trace::start(self.agent)?;
        let (init_s, finished) = self.with_guest(vmm, STEPS, |guest| {
            let init = guest.expect("init")?;
            let init_s = init.trim().parse().context("The guest's uptime is no number")?;
            Ok((init_s, guest.expect_power_off()?))
        })?;
        Ok(Round {
            wall_s: Duration::from_millis(finished.elapsed_ms).as_secs_f64(),
            init_s,
            counts: trace.finish()?,
        })
    }

    /// One run whose process is looked at while the guest waits.
    fn look(&self, vmm: Vmm) -> Result<Process> {
        self.with_guest(vmm, WATCHED_STEPS, |guest| {
            guest.expect("ask")?;
            let process = Process::sample(self.agent, vmm, guest.pid, self.config(STEPS).memory_mib)?;
            guest.type_line("go")?;
            guest.expect_power_off()?;
            Ok(process)
        })
    }

    fn with_guest<T>(
        &self,
        vmm: Vmm,
        steps: &str,
        work: impl FnOnce(&mut Guest<'a>) -> Result<T>,
    ) -> Result<T> {
        let command = vmm.command(&self.config(steps));
        let mut guest = Guest::start(self.agent, command, Instant::now() + LIMIT, false)?;
        let result = work(&mut guest);
        self.logs
            .append(&format!("bench-{}.log", vmm.name()), &guest.transcript());
        result
    }

    fn config(&self, steps: &str) -> GuestConfig {
        GuestConfig {
            devices: vec![self.nic.bdf.clone()],
            cmdline: format!("console=ttyS0 panic=-1 quiet lab.do={steps}"),
            ..GuestConfig::default()
        }
    }
}

//! Strait beside QEMU: the same kernel, initramfs and device, one after the other in one lab host,
//! round after round, so that whatever disturbs the machine disturbs both. What is found is a report of
//! `strait-bench`, which draws it and tells how sure each ratio is.

mod behind_iommu;
mod dma_ready;
mod floor;
mod hot_add;
mod inner;
pub(crate) mod iperf;
mod large_maps;
mod locked;
mod plain;
mod probes;
mod start;
mod traffic;
mod vectors;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};
use strait_bench::counting::{Figures, Sheet};
use strait_bench::{Look, Order, Report, Shell, table};

use crate::agent::Agent;
use crate::guest::{Boot, Guest, GuestConfig, Vmm};
use crate::lab::{Kind, LabHost, Logs, build_strait};
use crate::supplies::Supplies;

use iperf::Iperf;

/// A nested run takes one to two minutes on a quiet machine, everything else less.
const LIMIT: Duration = Duration::from_secs(900);

/// A part of what is measured of a guest with a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Its start to its end.
    Start,
    /// Its memory, until the NIC may reach all of it.
    Dma,
    /// A NIC that comes while it runs.
    HotAdd,
    /// Its NIC under load.
    Streams,
    /// What an interrupt vector costs.
    Vectors,
}

/// Measures `parts` of a guest with a NIC, all if there are none; or with `is_nested` one with an IOMMU of its own. Prints a
/// table and writes a file, which after SIGINT or SIGTERM is a part.
pub(crate) fn bench(is_nested: bool, rounds: u32, vmms: &[Vmm], parts: &[Part]) -> Result<ExitCode> {
    let supplies = Supplies::prepare()?;
    let logs = Logs::open()?;
    let iperf = Iperf::start(&supplies.root)?;
    let strait = vmms.contains(&Vmm::Strait).then(build_strait).transpose()?;
    let host = LabHost::boot(&supplies, &logs, strait.as_deref(), Kind::Whole)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let bench = Bench {
        host: &host,
        agent: &host.agent,
        logs: &logs,
        iperf: &iperf,
        rounds,
        vmms,
        parts,
        failed: RefCell::default(),
        interrupted: &interrupted,
    };
    if is_nested {
        bench.report("bench-nested.json", behind_iommu::measure, behind_iommu::fill)?;
    } else {
        bench.report("bench.json", plain::measure, plain::fill)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What every measurement works with.
struct Bench<'a> {
    host: &'a LabHost,
    agent: &'a Agent,
    logs: &'a Logs,
    iperf: &'a Iperf,
    rounds: u32,
    vmms: &'a [Vmm],
    parts: &'a [Part],
    /// Rounds without figures, and why.
    failed: RefCell<Vec<(Vmm, String)>>,
    /// The user wants to end.
    interrupted: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    /// Measures, prints and writes to a file, what there is even where something failed.
    fn report<R: Default>(
        &self,
        file: &str,
        measure: fn(&Bench<'_>, &mut Figures<R>) -> Result<()>,
        fill: fn(&mut Sheet<'_, R>),
    ) -> Result<()> {
        let look = Look::before(|file| self.agent.sh(&format!("cat {file}")).ok());
        let mut figures = Figures::default();
        let outcome = measure(self, &mut figures);
        let mut report = Report::new(Vmm::Qemu.name());
        report.is_complete = outcome.is_ok();
        look.tell(&mut report);
        fill(&mut Sheet::new(&mut report, &figures));
        let failed = self.failed.borrow();
        report
            .warnings
            .extend(failed.iter().map(|(_, why)| format!("{why}.")));
        if !self.parts.is_empty() {
            report.metrics.retain(|metric| !metric.rounds.is_empty());
        }
        let path = self.logs.path(file);
        print!("{}", table(&report));
        report.write(&path)?;
        println!(
            "\nAll rounds: {}; to be read: {}",
            path.display(),
            path.with_extension("html").display()
        );
        outcome?;
        if let Some((_, why)) = failed.iter().find(|(vmm, _)| *vmm == Vmm::Strait) {
            bail!("{why}");
        }
        let broken: Vec<String> = report.broken().iter().map(ToString::to_string).collect();
        ensure!(broken.is_empty(), "{}", broken.join("; "));
        Ok(())
    }

    /// Whether a part is to be measured.
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    /// Calls `work` for each VMM in turn, round after round, there and back again. It returns a figure to show. A round
    /// that fails is told in the report, and the others go on.
    ///
    /// # Errors
    /// When the lab host itself is no more, or the user wants to end.
    fn rounds(&self, what: &str, mut work: impl FnMut(Vmm) -> Result<String>) -> Result<()> {
        for (round, subject) in Order::abba(self.vmms.len(), self.rounds).turns() {
            let vmm = self.vmms[subject];
            let name = vmm.name();
            ensure!(
                !self.interrupted.load(Relaxed),
                "{what}: interrupted before round {round} of {name}"
            );
            match work(vmm) {
                Ok(shown) => eprintln!("  {what}, round {round} of {}, {name}: {shown}", self.rounds),
                Err(error) => {
                    let why = format!("{what}: round {round} of {name} failed: {error:#}");
                    eprintln!("  {why}");
                    self.agent.sh("true").with_context(|| why.clone())?;
                    self.failed.borrow_mut().push((vmm, why));
                }
            }
        }
        Ok(())
    }

    /// Runs `work` on a freshly started guest and keeps the console, whatever happens. `work` waits for the guest to
    /// be ready, and for its end.
    fn with_guest<T>(
        &self,
        vmm: Vmm,
        config: &GuestConfig,
        work: impl FnOnce(&mut Guest<'a>) -> Result<T>,
    ) -> Result<T> {
        let boot = Boot {
            pace: self.host.pace.factor(),
            ..Boot::default()
        };
        let command = vmm.command(config, &boot.cmdline(&config.words));
        let mut guest = Guest::start(
            self.agent,
            command,
            Instant::now() + self.host.pace.stretch(LIMIT),
            false,
        )?;
        let result = work(&mut guest);
        self.logs
            .append(&format!("bench-{}.log", vmm.name()), &guest.transcript());
        result
    }
}

impl Shell for Agent {
    fn sh(&self, script: &str) -> Result<String> {
        Self::sh(self, script)
    }
}

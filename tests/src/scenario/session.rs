//! Runs scenarios one after the other, in one lab host as long as it lives.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use super::instructions;
use super::runner::Selection;
use super::unit_tests::Counts;
use super::{Kind, Lab, Scenario, Skip};
use crate::guest::{Boot, Vmm};
use crate::lab::{LabHost, Leftovers, Logs, Outside, build_strait};
use crate::supplies::{HOST_SERIES, OLD_SERIES, Supplies, debug_kernel, further};

/// All that scenarios share.
pub(super) struct Session<'a> {
    selection: &'a Selection,
    supplies: Supplies,
    logs: Logs,
    outside: Outside,
    series: Vec<&'static str>,
}

impl<'a> Session<'a> {
    /// Prepares the lab, without building or booting anything yet.
    pub(super) fn new(
        selection: &'a Selection,
        scenarios: &[Scenario],
        counts_instructions: bool,
    ) -> Result<Self> {
        let mut supplies = Supplies::prepare()?;
        if scenarios.iter().any(|scenario| scenario.further_kernel)
            && let Err(error) = supplies.add_further_kernels()
        {
            eprintln!("  There are no further kernels for guests: {error:#}");
        }
        if scenarios.iter().any(|scenario| scenario.qmp_client)
            && let Err(error) = supplies.add_qmp_client()
        {
            eprintln!("  There is no client of QMP: {error:#}");
        }
        if scenarios.iter().any(|scenario| scenario.debug_kernel)
            && let Err(error) = supplies.add_debug_kernel()
        {
            eprintln!("  There is no kernel with debug information: {error:#}");
        }
        if scenarios.iter().any(|scenario| scenario.fio)
            && let Err(error) = supplies.add_fio()
        {
            eprintln!("  There is no fio: {error:#}");
        }
        if counts_instructions && let Err(error) = supplies.add_valgrind() {
            eprintln!("  There is no valgrind: {error:#}");
        }
        let further = further::ALL.map(|further| further.series);
        let usual = [HOST_SERIES, OLD_SERIES, debug_kernel::SERIES];
        let mut series: Vec<_> = usual.into_iter().chain(further).collect();
        series.retain(|series| supplies.kernel(series).is_some());
        Ok(Self {
            selection,
            logs: Logs::open()?,
            outside: Outside::start()?,
            series,
            supplies,
        })
    }

    /// Runs what needs no lab host.
    pub(super) fn count_instructions(&self, counts: &mut Counts) {
        let start = Instant::now();
        let verdict = instructions::hold(&self.supplies, &self.logs);
        self.count(instructions::NAME, verdict, start.elapsed().as_secs_f64(), counts);
    }

    /// Runs scenarios in their order and counts them.
    pub(super) fn run(&self, scenarios: &[Scenario], counts: &mut Counts) -> Result<()> {
        let (here, skipped): (Vec<&Scenario>, Vec<&Scenario>) = scenarios
            .iter()
            .partition(|scenario| scenario.qemu || self.selection.vmm == Vmm::Strait);
        let needs_strait =
            self.selection.vmm == Vmm::Strait || here.iter().any(|scenario| scenario.needs_strait);
        let strait = needs_strait.then(build_strait).transpose()?;
        for kind in Kind::ALL {
            let mut host = None;
            for scenario in here.iter().filter(|scenario| scenario.kind == kind) {
                let start = Instant::now();
                let verdict = self.run_in(&mut host, strait.as_deref(), scenario)?;
                self.count(&scenario.name, verdict, start.elapsed().as_secs_f64(), counts);
            }
        }
        if !skipped.is_empty() {
            counts.skipped += skipped.len() as u64;
            let names: Vec<&str> = skipped.iter().map(|scenario| scenario.name.as_str()).collect();
            println!("skipped: only strait promises these: {}", names.join(", "));
        }
        Ok(())
    }

    /// Runs one scenario in the host, booting one if there is none. A host that stopped answering is replaced
    /// for the next scenario; this one has failed.
    fn run_in(
        &self,
        slot: &mut Option<LabHost>,
        strait: Option<&Path>,
        scenario: &Scenario,
    ) -> Result<Result<()>> {
        let host = match slot.take() {
            Some(host) => host,
            None => LabHost::boot(&self.supplies, &self.logs, strait, scenario.kind)?,
        };
        let verdict = self.attempt(&host, scenario);
        if !host.agent.is_lost() {
            *slot = Some(host);
            return Ok(verdict);
        }
        host.write_post_mortem();
        let console = host.console().display();
        Ok(verdict.with_context(|| format!("The lab host stopped answering, see {console}")))
    }

    /// A scenario and the look at the host behind it.
    fn attempt(&self, host: &LabHost, scenario: &Scenario) -> Result<()> {
        let lab = Lab {
            agent: &host.agent,
            host,
            vmm: self.selection.vmm,
            outside: &self.outside,
            root: &self.supplies.root,
            logs: &self.logs,
            name: &scenario.name,
            deadline: Instant::now() + host.pace.stretch(scenario.limit),
            series: &self.series,
            boot: Boot {
                pace: host.pace.factor(),
                is_loud: self.selection.live,
                extra: self.selection.cmdline.clone(),
            },
            taken: RefCell::default(),
        };
        let before = Leftovers::take(lab.agent)?;
        let verdict = (scenario.run)(&lab).map_err(|error| {
            if Instant::now() < lab.deadline {
                return error;
            }
            error.context(host.pace.explain(scenario.limit))
        });
        let given_back = lab.give_back();
        if host.agent.is_lost() {
            return verdict;
        }
        let mut changes = Leftovers::changes_since(&before, lab.agent)?;
        changes.retain(|change| {
            !scenario
                .expected_warnings
                .iter()
                .any(|words| change.contains(words))
        });
        match verdict {
            Ok(()) if changes.is_empty() => given_back,
            Ok(()) => Err(anyhow!("The host is not as it was: {}", changes.join("; "))),
            Err(error) if changes.is_empty() => Err(error),
            Err(error) => Err(error.context(format!("The host is not as it was ({})", changes.join("; ")))),
        }
    }

    fn count(&self, name: &str, verdict: Result<()>, seconds: f64, counts: &mut Counts) {
        match verdict {
            Ok(()) => {
                counts.passed += 1;
                println!("{name:22} passed  {seconds:6.1} s");
            }
            Err(error) if error.is::<Skip>() => {
                counts.skipped += 1;
                println!("{name:22} skipped: {error}");
            }
            Err(error) => {
                counts.failed += 1;
                println!("{name:22} FAILED  {seconds:6.1} s  {error:#}");
                let log = self.logs.path(&format!("{name}.log"));
                println!("{:22} see {}", "", log.display());
            }
        }
    }
}

//! Runs scenarios one after the other in one lab host and counts.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

use super::unit::{self, Counts};
use super::{Context, Scenario, Verdict, all};
use crate::lab::{Host, HostState, LabHost, Logs, build_strait};
use crate::outside::Outside;
use crate::supplies::{HOST_SERIES, OLD_SERIES, Supplies};
use crate::vmm::Vmm;

/// The name under which the unit tests are chosen.
const UNIT: &str = "unit";

/// What the user asked for.
pub(crate) struct Selection {
    pub(crate) names: Vec<String>,
    pub(crate) full: bool,
    pub(crate) vmm: Vmm,
    pub(crate) cmdline: String,
    pub(crate) live: bool,
}

/// Prints the scenarios.
pub(crate) fn list() {
    println!("{UNIT:22} the unit tests of every package");
    for scenario in all() {
        let tier = if scenario.full { " (--full)" } else { "" };
        println!("{:22} {}{tier}", scenario.name, scenario.about);
    }
}

/// Runs what was selected; the last line printed is the count.
pub(crate) fn test(selection: &Selection) -> Result<ExitCode> {
    let scenarios = select(selection)?;
    let mut counts = Counts::default();
    if selection.names.is_empty() || selection.names.iter().any(|name| name == UNIT) {
        counts = unit::run()?;
        println!(
            "{UNIT:22} {} passed, {} failed, {} skipped",
            counts.passed, counts.failed, counts.skipped
        );
    }
    if !scenarios.is_empty() {
        run_scenarios(&scenarios, selection, &mut counts)?;
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = counts;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Named ones, whatever their tier; without names the tier. A name may be a prefix and `*`.
fn select(selection: &Selection) -> Result<Vec<Scenario>> {
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    for pattern in &selection.names {
        let known = pattern == UNIT || all().iter().any(|scenario| matches(pattern, scenario.name));
        if !known {
            bail!("There is no scenario {pattern}; `cargo lab test --list` names them all");
        }
    }
    let wanted = |scenario: &Scenario| {
        if selection.names.is_empty() {
            return selection.full || !scenario.full;
        }
        selection
            .names
            .iter()
            .any(|pattern| matches(pattern, scenario.name))
    };
    Ok(all().into_iter().filter(wanted).collect())
}

fn run_scenarios(scenarios: &[Scenario], selection: &Selection, counts: &mut Counts) -> Result<()> {
    let supplies = Supplies::prepare()?;
    let strait = (selection.vmm == Vmm::Strait).then(build_strait).transpose()?;
    let logs = Logs::open()?;
    let outside = Outside::start()?;
    let series: Vec<&'static str> = [HOST_SERIES, OLD_SERIES]
        .into_iter()
        .filter(|series| supplies.kernel(series).is_some())
        .collect();
    for kind in [Host::Whole, Host::WithoutIommu] {
        let here = scenarios.iter().filter(|scenario| scenario.host == kind);
        let (here, skipped): (Vec<&Scenario>, Vec<&Scenario>) =
            here.partition(|scenario| scenario.qemu || selection.vmm == Vmm::Strait);
        if !here.is_empty() {
            let host = LabHost::boot(&supplies, &logs, strait.as_deref(), kind)?;
            for scenario in here {
                let lab = Context {
                    agent: &host.agent,
                    vmm: selection.vmm,
                    outside: &outside,
                    logs: &logs,
                    name: scenario.name,
                    deadline: Instant::now() + scenario.limit,
                    series: &series,
                    extra_cmdline: &selection.cmdline,
                    live: selection.live,
                };
                run_and_count(scenario, &lab, counts);
            }
        }
        if !skipped.is_empty() {
            counts.skipped += skipped.len() as u64;
            let names: Vec<&str> = skipped.iter().map(|scenario| scenario.name).collect();
            println!("skipped: only strait promises these: {}", names.join(", "));
        }
    }
    Ok(())
}

fn run_and_count(scenario: &Scenario, lab: &Context<'_>, counts: &mut Counts) {
    let start = Instant::now();
    let verdict = run_one(scenario, lab);
    let seconds = start.elapsed().as_secs_f64();
    let name = scenario.name;
    match verdict {
        Ok(Verdict::Passed) => {
            counts.passed += 1;
            println!("{name:22} passed  {seconds:6.1} s");
        }
        Ok(Verdict::Skipped(why)) => {
            counts.skipped += 1;
            println!("{name:22} skipped: {why}");
        }
        Err(error) => {
            counts.failed += 1;
            println!("{name:22} FAILED  {seconds:6.1} s  {error:#}");
            println!(
                "{:22} see {}",
                "",
                lab.logs.path(&format!("{name}.log")).display()
            );
        }
    }
}

/// A scenario and the look at the host behind it.
fn run_one(scenario: &Scenario, lab: &Context<'_>) -> Result<Verdict> {
    let before = HostState::take(lab.agent)?;
    let verdict = (scenario.run)(lab);
    let changes = HostState::changes_since(&before, lab.agent)?;
    match verdict {
        Ok(verdict) if changes.is_empty() => Ok(verdict),
        Ok(_) => Err(anyhow!("The host is not as it was: {}", changes.join("; "))),
        Err(error) if changes.is_empty() => Err(error),
        Err(error) => Err(error.context(format!("The host is not as it was ({})", changes.join("; ")))),
    }
}

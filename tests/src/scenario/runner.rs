//! What to run, and the count at the end.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::instructions;
use super::session::Session;
use super::unit_tests::{self, Counts};
use super::{Scenario, all};
use crate::guest::Vmm;
use crate::lab::Lane;

/// The name under which the unit tests are chosen.
const UNIT: &str = "unit";

/// What the user asked for.
pub(crate) struct Selection {
    pub(crate) names: Vec<String>,
    pub(crate) full: bool,
    pub(crate) lane: Option<Lane>,
    pub(crate) vmm: Vmm,
    pub(crate) cmdline: String,
    pub(crate) live: bool,
}

/// Prints the scenarios. A reader who has seen enough may leave.
pub(crate) fn list() -> Result<()> {
    let mut text = format!("{UNIT:22} the unit tests of every package\n");
    text += &format!("{:22} {}\n", instructions::NAME, instructions::ABOUT);
    for Scenario {
        name, about, full, ..
    } in all()
    {
        let tier = if full { " (--full)" } else { "" };
        text += &format!("{name:22} {about}{tier}\n");
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("Cannot print the list")
        }
        _ => Ok(()),
    }
}

/// Runs what was selected; the last line printed is the count.
pub(crate) fn test(selection: &Selection) -> Result<ExitCode> {
    let scenarios = select(selection)?;
    // First of all: what is missing for it is said before anything is built.
    let counts_instructions = selection.wants(instructions::NAME);
    let session = (!scenarios.is_empty() || counts_instructions)
        .then(|| Session::new(selection, &scenarios, counts_instructions))
        .transpose()?;
    let mut counts = Counts::default();
    if selection.wants(UNIT) {
        counts = unit_tests::run()?;
        println!(
            "{UNIT:22} {} passed, {} failed, {} skipped",
            counts.passed, counts.failed, counts.skipped
        );
    }
    if let Some(session) = session {
        if counts_instructions {
            session.count_instructions(&mut counts);
        }
        if !scenarios.is_empty() {
            session.run(&scenarios, &mut counts)?;
        }
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

impl Selection {
    /// Whether something that needs no lab machine is to be run: by its name, or with everything.
    fn wants(&self, name: &str) -> bool {
        let everything = self.names.is_empty() && self.lane.is_none();
        everything || self.names.iter().any(|pattern| matches(pattern, name))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Named ones and those of a lane, whatever their tier; otherwise the tier. A name may be a prefix and `*`.
fn select(selection: &Selection) -> Result<Vec<Scenario>> {
    for pattern in &selection.names {
        let known = [UNIT, instructions::NAME]
            .iter()
            .any(|name| matches(pattern, name))
            || all().iter().any(|scenario| matches(pattern, &scenario.name));
        if !known {
            bail!("There is no scenario {pattern}; `cargo lab test --list` names them all");
        }
    }
    let wanted = |scenario: &Scenario| {
        if selection.lane.is_some() {
            return scenario.kind.lane() == selection.lane;
        }
        if selection.names.is_empty() {
            return selection.full || !scenario.full;
        }
        selection
            .names
            .iter()
            .any(|pattern| matches(pattern, &scenario.name))
    };
    Ok(all().into_iter().filter(wanted).collect())
}

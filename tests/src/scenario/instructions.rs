//! What the hot paths cost in instructions, held against a table. Counts of one compiler repeat to the last one, on any
//! machine and beside any load; those of another compiler say nothing. It runs on the build machine: no lab is needed.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::Skip;
use crate::lab::{Logs, build_program};
use crate::supplies::{Supplies, command};

/// Under which it is chosen, as scenarios are.
pub(super) const NAME: &str = "instruction-counts";
pub(super) const ABOUT: &str = "the hot paths take the instructions that devices/paths/counts.txt says";

/// A compiler, and instructions of one pass by the path's name.
const TABLE: &str = include_str!("../../../devices/paths/counts.txt");

/// How far a count may be from the table's, in percent.
const MARGIN: u64 = 2;

/// Passes of the two runs whose difference is counted: as many digits in both, which are read too.
const PASSES: [u64; 2] = [100, 200];

/// Counts all paths. What was counted is the log: the table that it would be.
pub(super) fn hold(supplies: &Supplies, logs: &Logs) -> Result<()> {
    let (expected_of, expected) = parse(TABLE)?;
    let compiler = compiler()?;
    ensure!(
        compiler == expected_of,
        Skip(format!("the table is of {expected_of}, this is {compiler}"))
    );
    ensure!(
        supplies.callgrind().is_some(),
        Skip("there is no valgrind".to_owned())
    );
    let program = build_program("strait-paths")?;
    let mut counted = BTreeMap::new();
    for name in command::output(&mut command::program(&program))?.lines() {
        let [few, many] = PASSES.map(|passes| count(supplies, &program, name, passes));
        let passes = PASSES[1] - PASSES[0];
        counted.insert(name.to_owned(), many?.saturating_sub(few?) / passes);
    }
    let found = logs.path(&format!("{NAME}.log"));
    fs::write(&found, table(&compiler, &counted))
        .with_context(|| format!("Cannot write {}", found.display()))?;
    let wrong = differences(&expected, &counted);
    ensure!(
        wrong.is_empty(),
        "{}; if that is meant, {} takes the place of devices/paths/counts.txt",
        wrong.join("; "),
        found.display()
    );
    Ok(())
}

/// The one that builds this checkout, in its own words.
fn compiler() -> Result<String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let beside = Path::new(&cargo).with_file_name("rustc");
    let version = command::output(command::program(beside).arg("--version"))?;
    Ok(version.trim().to_owned())
}

/// `==7== Collected : 211746`
fn count(supplies: &Supplies, program: &Path, name: &str, passes: u64) -> Result<u64> {
    let mut callgrind = supplies.callgrind().context("There is no valgrind")?;
    callgrind.arg(program).args([name, &passes.to_string()]);
    let said = command::run(&mut callgrind)?.stderr;
    let said = String::from_utf8_lossy(&said);
    let number = said
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    number.with_context(|| format!("callgrind counted nothing: {}", command::last_line(&said)))
}

/// The first line is the compiler, each other a path and its count; `#` begins a comment.
fn parse(table: &str) -> Result<(String, BTreeMap<String, u64>)> {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let compiler = lines.next().context("The table of counts is empty")?;
    let entry = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    let counts = lines
        .map(|line| entry(line).with_context(|| format!("`{line}` is no path with a count")))
        .collect::<Result<_>>()?;
    Ok((compiler.to_owned(), counts))
}

fn table(compiler: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut text = String::from(
        "# Instructions of one pass through each hot path, as callgrind counts them in a release build of this compiler.\n",
    );
    text += &format!("{compiler}\n");
    for (name, count) in counts {
        text += &format!("{name} {count}\n");
    }
    text
}

/// A sentence for each path that is elsewhere than expected.
fn differences(expected: &BTreeMap<String, u64>, counted: &BTreeMap<String, u64>) -> Vec<String> {
    let names = expected
        .keys()
        .chain(counted.keys().filter(|name| !expected.contains_key(*name)));
    let difference = |name: &String| match (expected.get(name), counted.get(name)) {
        (Some(expected), Some(counted)) => {
            let is_far = counted.abs_diff(*expected) * 100 > expected * MARGIN;
            is_far.then(|| {
                let percent = (*counted as f64 / (*expected as f64).max(1.0) - 1.0) * 100.0;
                format!("{name} takes {counted} instructions, not {expected} ({percent:+.1} %)")
            })
        }
        (Some(_), None) => Some(format!("{name} is no path any more")),
        (None, _) => Some(format!("{name} is not in the table")),
    };
    names.filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, u64)]) -> BTreeMap<String, u64> {
        entries
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn the_table_can_be_read_and_is_what_would_be_written() {
        let (compiler, counts) = parse(TABLE).expect("a table");
        assert!(compiler.starts_with("rustc ") && counts.len() >= 6, "{counts:?}");
        assert_eq!(table(&compiler, &counts), TABLE);
        assert!(parse("rustc 1\nbus-lookup many\n").is_err());
    }

    #[test]
    fn more_than_two_percent_either_way_a_new_path_and_a_gone_one_are_told() {
        let expected = counts(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1)]);
        let counted = counts(&[("a", 1020), ("b", 1021), ("c", 979), ("e", 1)]);
        assert_eq!(
            differences(&expected, &counted),
            [
                "b takes 1021 instructions, not 1000 (+2.1 %)",
                "c takes 979 instructions, not 1000 (-2.1 %)",
                "d is no path any more",
                "e is not in the table",
            ]
        );
    }
}

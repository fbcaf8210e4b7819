//! The workspace's unit tests, counted from cargo's own summary lines.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::workspace;

/// Counts of one run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

/// Runs `cargo test --workspace`.
pub(super) fn run() -> Result<Counts> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--workspace", "--no-fail-fast"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("Cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut counts = count(&text);
    if !output.status.success() {
        print!("{text}");
        // Code that does not build has no summary line.
        counts.failed = counts.failed.max(1);
    }
    Ok(counts)
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; ...`
fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(kind)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match kind {
                "passed" => counts.passed += number,
                "failed" => counts.failed += number,
                "ignored" => counts.skipped += number,
                _ => {}
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_packages_are_added() {
        let text = "test a ... ok\n\
                    test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(
            count(text),
            Counts {
                passed: 7,
                failed: 1,
                skipped: 1
            }
        );
    }
}

//! What many scenarios type, and what they look for in the answer.

use anyhow::{Context, Result, ensure};

use super::Guest;

/// What a kernel says of its IOMMU, and what it finds broken.
const DMAR: &str = "dmesg | sed 's/^\\[[^]]*\\] //' | grep -v 'ommand line:' |
    grep -E 'DMAR|iommu|INTR-REMAP|[Ff]irmware [Bb]ug|BIOS bug' || true";

/// Parts of what it says when something is wrong.
const COMPLAINTS: [&str; 8] = [
    "malfunctioning",
    "QI HEAD",
    "Request device",
    "fault reason",
    "no mapping iommu",
    "Failed to set source-id",
    "BIOS bug",
    "[INTR-REMAP]",
];

/// The guest answers `script` with these words.
pub(crate) fn says(guest: &mut Guest<'_>, script: &str, words: &str) -> Result<()> {
    let said = guest.sh(script)?;
    ensure!(
        said == words,
        "The guest answers `{script}` with `{said}`, expected `{words}`"
    );
    Ok(())
}

/// The number that the guest answers `script` with, in C's notation.
pub(crate) fn number(guest: &mut Guest<'_>, script: &str) -> Result<u64> {
    let said = guest.sh(script)?;
    let number = match said.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => said.parse(),
    };
    number.with_context(|| format!("The guest answers `{script}` with `{said}`, which is no number"))
}

/// Writes so much noise to a drive; it comes back as it was.
pub(crate) fn kept(guest: &mut Guest<'_>, drive: &str, mebibytes: u32) -> Result<()> {
    let hashes = guest.sh(&format!("keep {drive} {mebibytes}"))?;
    let hashes: Vec<&str> = hashes.lines().collect();
    ensure!(
        hashes.len() == 2 && hashes[0] == hashes[1],
        "{mebibytes} MiB on {drive}, hashed as written and as read: {hashes:?}"
    );
    Ok(())
}

/// What the guest's kernel says of its IOMMU, line by line, among which is no complaint.
pub(crate) fn complaints(guest: &mut Guest<'_>) -> Result<Vec<String>> {
    let said = guest.sh(DMAR)?;
    let said: Vec<String> = said.lines().map(str::to_owned).collect();
    for complaint in COMPLAINTS {
        let found = said.iter().find(|line| line.contains(complaint));
        ensure!(found.is_none(), "The guest's kernel complains: {found:?}");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    const PAGE: &str = include_str!("../../README.md");
    const INIT: &str = include_str!("../../../resources/lab/guest-init.sh");

    /// Functions that the first program has for itself.
    const OWN: [&str; 3] = ["change_link", "heard_link", "setting"];

    #[test]
    fn the_page_for_test_writers_names_every_verb_and_no_other() {
        let functions = INIT.lines().filter_map(|line| Some(line.split_once("() {")?.0));
        let mut has: Vec<&str> = functions.filter(|name| !OWN.contains(name)).collect();
        let (_, table) = PAGE.split_once("| verb |").expect("a table");
        let (table, _) = table.split_once("\n\n").expect("an end of the table");
        let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
        let mut told: Vec<&str> = rows.filter_map(|row| row.split([' ', '`']).next()).collect();
        has.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, has);
    }

    #[test]
    fn the_scenario_on_that_page_is_a_real_one() {
        let (_, rest) = PAGE.split_once("```rust\n").expect("an example");
        let (example, _) = rest.split_once("```\n").expect("its end");
        assert_eq!(example, include_str!("../scenario/clock.rs"));
    }
}

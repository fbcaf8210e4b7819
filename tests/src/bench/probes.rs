//! `strait-floor` in the lab host.

use std::fs;

use anyhow::{Context as _, Result};
use strait_bench::counting::{FLOOR, Launch, Probe};

use super::Bench;
use crate::guest::GuestConfig;
use crate::lab::build_program;

/// Builds it, and gives it to the lab host.
pub(super) fn prepare(bench: &Bench<'_>) -> Result<()> {
    let program = build_program(FLOOR)?;
    let to = bench.host.file(&format!("bin/{FLOOR}"));
    fs::copy(&program, &to).with_context(|| format!("Cannot copy {} for the lab host", program.display()))?;
    Ok(())
}

/// As [`prepare`] left it.
pub(super) fn probe<'a>(bench: &'a Bench<'_>) -> Probe<'a> {
    Probe::new(bench.agent, FLOOR)
}

/// What a probe has of this guest.
pub(super) fn like(config: &GuestConfig, nic: &str) -> Launch {
    Launch {
        memory_mib: config.memory_mib,
        files: [config.kernel(), config.initrd()],
        device: nic.to_owned(),
    }
}

//! A guest from its start to its power-off.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Bench;
use super::counts::Counts;
use super::process::Process;
use super::trace::{BOOT, MAPPINGS, Trace};
use crate::guest::{GuestConfig, Vmm};

/// What the guest does: load the NIC's driver and power off.
const STEPS: &str = "load";

/// The same, with a pause to be looked at.
const WATCHED_STEPS: &str = "load,ask";

/// One start of one VMM.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Boot {
    /// Start of the process to its end.
    pub(super) wall_s: f64,
    /// The guest's uptime when its first program runs.
    pub(super) init_s: f64,
    pub(super) counts: Counts,
}

/// One run that is left alone, but for the kernel's own counting.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm, nic: &str) -> Result<Boot> {
    let trace = Trace::start(bench.agent, BOOT)?;
    let (init_s, finished) = bench.with_guest(vmm, &config(nic, STEPS), |guest| {
        let init = guest.expect("init")?;
        let init_s = init.trim().parse().context("The guest's uptime is no number")?;
        Ok((init_s, guest.expect_power_off()?))
    })?;
    Ok(Boot {
        wall_s: Duration::from_millis(finished.elapsed_ms).as_secs_f64(),
        init_s,
        counts: trace.finish()?,
    })
}

/// One run whose process is looked at while the guest waits.
pub(super) fn look(bench: &Bench<'_>, vmm: Vmm, nic: &str) -> Result<Process> {
    let config = config(nic, WATCHED_STEPS);
    let trace = Trace::start(bench.agent, MAPPINGS)?;
    bench.with_guest(vmm, &config, |guest| {
        guest.expect("ask")?;
        let ram = 0..config.memory_mib << 20;
        let ram_maps = trace.finish()?.within("mappings", &ram);
        let process = Process::sample(bench.agent, vmm, guest.pid, config.memory_mib, ram_maps)?;
        guest.type_line("go")?;
        guest.expect_power_off()?;
        Ok(process)
    })
}

fn config(nic: &str, steps: &str) -> GuestConfig {
    GuestConfig {
        devices: vec![nic.to_owned()],
        cmdline: format!("console=ttyS0 panic=-1 quiet lab.do={steps}"),
        ..GuestConfig::default()
    }
}

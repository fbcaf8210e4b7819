//! A guest from its start to its power-off.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Bench;
use super::counts::Counts;
use super::process::Process;
use super::trace::{BOOT, MAPPINGS, Trace};
use crate::guest::{GuestConfig, Vmm};

/// One start of one VMM.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Boot {
    /// Start of the process to its end.
    pub(super) wall_s: f64,
    /// The guest's uptime when its first program runs.
    pub(super) init_s: f64,
    pub(super) counts: Counts,
}

/// One run that is left alone, but for the kernel's own counting: the guest loads the NIC's driver and powers off,
/// as its command line tells it.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm, nic: &str) -> Result<Boot> {
    let trace = Trace::start(bench.agent, BOOT)?;
    let config = GuestConfig::with(&[nic]).told("lab.run=load");
    let (init_s, finished) =
        bench.with_guest(vmm, &config, |guest| Ok((guest.ready()?, guest.expect_end(0)?)))?;
    Ok(Boot {
        wall_s: Duration::from_millis(finished.elapsed_ms).as_secs_f64(),
        init_s,
        counts: trace.finish()?,
    })
}

/// One run whose process is looked at while the guest waits.
pub(super) fn look(bench: &Bench<'_>, vmm: Vmm, nic: &str) -> Result<Process> {
    let config = GuestConfig::with(&[nic]);
    let trace = Trace::start(bench.agent, MAPPINGS)?;
    bench.with_guest(vmm, &config, |guest| {
        guest.ready()?;
        guest.sh("load")?;
        let ram = 0..config.memory_mib << 20;
        let ram_maps = trace.finish()?.within("mappings", &ram);
        let process = Process::sample(bench.agent, vmm, guest.pid, config.memory_mib, ram_maps)?;
        guest.power_off()?;
        Ok(process)
    })
}

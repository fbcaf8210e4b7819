//! A guest from its start to its end, and its VMM's process meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;
use strait_bench::counting::{BOOT, Boot, MAPPINGS, Process, StartTrace, Trace};

use super::Bench;
use crate::guest::{GuestConfig, Vmm};

/// One run that is left alone, but for the kernel's own counting: the guest loads the NIC's driver and powers off,
/// as its command line tells it.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm, nic: &str, more: &'static [&'static str]) -> Result<Boot> {
    let trace = Trace::start(bench.agent, BOOT)?;
    let start_trace = StartTrace::start(bench.agent)?;
    let config = GuestConfig {
        more,
        ..GuestConfig::with(&[nic]).told("lab.run=load")
    };
    let (init_s, ready_s, finished) = bench.with_guest(vmm, &config, |guest| {
        let start = Instant::now();
        let init_s = guest.ready()?;
        Ok((init_s, start.elapsed().as_secs_f64(), guest.expect_end(0)?))
    })?;
    let wall_s = Duration::from_millis(finished.elapsed_ms).as_secs_f64();
    Ok(Boot {
        wall_s,
        init_s,
        phases: Some(start_trace.finish()?.phases(ready_s, wall_s)),
        counts: Some(trace.finish()?),
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
        let program = vmm.program();
        let process = Process::sample(bench.agent, program, guest.pid, config.memory_mib, ram_maps)?;
        guest.power_off()?;
        Ok(process)
    })
}

//! A guest with a guest of its own: how long it takes from the start to the end of all.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use crate::guest::{Boot, Vmm, hypervisor};

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Nested {
    /// Start of the outer VMM to the outer guest's first program.
    pub(super) outer_init_s: f64,
    /// Start of the inner VMM to its end.
    pub(super) inner_s: f64,
    /// Start of the outer VMM to its end.
    pub(super) wall_s: f64,
}

/// Runs `inner` in a guest of `outer`: L1 boots, gives its NIC to vfio-pci and runs L2, which brings the NIC
/// up, pings and powers off; then L1 powers off. The initial file system is the same for all combinations.
pub(super) fn measure(bench: &Bench<'_>, outer: Vmm, inner: Vmm, nic: &str) -> Result<Nested> {
    let config = hypervisor::outer(&[nic], Vmm::Qemu);
    let start = Instant::now();
    bench.with_guest(outer, &config, |guest| {
        guest.ready()?;
        let outer_init_s = start.elapsed().as_secs_f64();
        hypervisor::give(guest, "igb", &["01:00.0"])?;
        let inner_start = Instant::now();
        guest.enter(&hypervisor::inner(&Boot::default(), inner, &["0000:01:00.0"], 1))?;
        guest.sh("load igb; net eth0 10.0.2.15; ping -c 3 -W 10 10.0.2.2")?;
        guest.leave()?;
        let inner_s = inner_start.elapsed().as_secs_f64();
        let finished = guest.power_off()?;
        Ok(Nested {
            outer_init_s,
            inner_s,
            wall_s: Duration::from_millis(finished.elapsed_ms).as_secs_f64(),
        })
    })
}

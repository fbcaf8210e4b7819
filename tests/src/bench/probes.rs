//! `strait-floor` in the lab host.

use strait_bench::counting::{FLOOR, Launch, Probe};

use super::Bench;
use crate::guest::GuestConfig;

/// The program beside strait.
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

//! The scenarios: what the project promises, each tried in the lab and followed by a look at what
//! was left on the host.

mod bad_input;
mod boot;
mod context;
mod device_leaves;
mod devices;
mod host_command;
mod life_cycle;
mod mistakes;
mod nested;
mod next_kernel;
mod nic;
mod odd_machines;
mod outputs;
mod reset;
mod runner;
mod session;
mod tiny;
mod unit_tests;
mod viommu;
mod viommu_affinity;
mod viommu_dma;

use std::time::Duration;

use anyhow::Result;

pub(crate) use crate::lab::Host;
pub(crate) use context::Context;
pub(crate) use runner::{Selection, list, test};

/// How a scenario ended that did not fail.
pub(crate) enum Verdict {
    /// Everything was as promised.
    Passed,
    /// It cannot be tried here, for this reason.
    Skipped(String),
}

/// What a scenario does.
type Work = Box<dyn Fn(&Context) -> Result<Verdict>>;

/// One promise.
pub(crate) struct Scenario {
    /// What the user types.
    pub(crate) name: String,
    /// What it shows.
    pub(crate) about: String,
    /// More than this on a quiet machine is a failure.
    pub(crate) limit: Duration,
    /// Long ones run under `--full` only.
    pub(crate) full: bool,
    /// QEMU can be asked for the same.
    pub(crate) qemu: bool,
    /// Strait runs in it, whoever runs the guests of the lab's host.
    pub(crate) needs_strait: bool,
    /// Where it runs.
    pub(crate) host: Host,
    /// Parts of what the host's kernel says because of it, though nothing is wrong.
    pub(crate) expected_warnings: &'static [&'static str],
    /// The work.
    pub(crate) run: Work,
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        limit_s: u64,
        run: impl Fn(&Context) -> Result<Verdict> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            limit: Duration::from_secs(limit_s),
            full: false,
            qemu: true,
            needs_strait: false,
            host: Host::Whole,
            expected_warnings: &[],
            run: Box::new(run),
        }
    }

    fn full(mut self) -> Self {
        self.full = true;
        self
    }

    fn strait_only(mut self) -> Self {
        self.qemu = false;
        self
    }

    fn with_strait_inside(mut self) -> Self {
        self.needs_strait = true;
        self
    }

    fn on(mut self, host: Host) -> Self {
        self.host = host;
        self
    }

    fn warns(mut self, expected: &'static [&'static str]) -> Self {
        self.expected_warnings = expected;
        self
    }
}

/// All scenarios, in the order they run: the simplest first, so that the first failure says most.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = boot::scenarios();
    all.extend(nic::scenarios());
    all.extend(devices::scenarios());
    all.extend(viommu::scenarios());
    all.extend(viommu_dma::scenarios());
    all.extend(viommu_affinity::scenarios());
    all.extend(next_kernel::scenarios());
    all.extend(nested::scenarios());
    all.extend(life_cycle::scenarios());
    all.extend(reset::scenarios());
    all.extend(device_leaves::scenarios());
    all.extend(outputs::scenarios());
    all.extend(tiny::scenarios());
    all.extend(host_command::scenarios());
    all.extend(bad_input::scenarios());
    all.extend(odd_machines::scenarios());
    all
}

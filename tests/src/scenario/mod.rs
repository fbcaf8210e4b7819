//! The scenarios: what the project promises, each tried in the lab and followed by a look at what was left on the
//! host. How to write one is told in tests/README.md.

mod instructions;
mod lab;
mod runner;
mod session;
mod unit_tests;

use std::time::Duration;

use anyhow::Result;

pub(crate) use crate::lab::Kind;
pub(crate) use lab::{Lab, Skip};
pub(crate) use runner::{Selection, list, test};

/// Declares the files that have scenarios, and [`all`] of them in this order.
macro_rules! scenarios {
    ($($file:ident),* $(,)?) => {
        $(mod $file;)*

        /// All scenarios, in the order they run: the simplest first, so that the first failure says most.
        pub(crate) fn all() -> Vec<Scenario> {
            [$($file::scenarios()),*].into_iter().flatten().collect()
        }
    };
}

scenarios![
    boot,
    clock,
    nic,
    devices,
    viommu,
    viommu_dma,
    viommu_affinity,
    next_kernel,
    nested,
    nested_life,
    life_cycle,
    reset,
    device_leaves,
    device_errors,
    gdb,
    gdb_nested,
    gdb_tiny,
    gdb_types,
    control,
    hotplug,
    qmp_client,
    outputs,
    tiny,
    kernels,
    foreign,
    lean,
    memory,
    host_command,
    bad_input,
    odd_machines,
    bench_host,
    amd_iommu,
    zoo,
    hand_over,
    intel,
    intel_gdb,
];

/// What a scenario does.
type Work = Box<dyn Fn(&Lab<'_>) -> Result<()>>;

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
    /// Its guest's kernel is one that is fetched for it.
    pub(crate) further_kernel: bool,
    /// It works with QEMU's client of QMP, which is fetched for it.
    pub(crate) qmp_client: bool,
    /// Its guest's kernel is the one with debug information, which is built for it.
    pub(crate) debug_kernel: bool,
    /// It measures a drive with fio, which is fetched for it.
    pub(crate) fio: bool,
    /// Which machine it runs on.
    pub(crate) kind: Kind,
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
        run: impl Fn(&Lab<'_>) -> Result<()> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            limit: Duration::from_secs(limit_s),
            full: false,
            qemu: true,
            needs_strait: false,
            further_kernel: false,
            qmp_client: false,
            debug_kernel: false,
            fio: false,
            kind: Kind::Whole,
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

    fn with_further_kernel(mut self) -> Self {
        self.further_kernel = true;
        self
    }

    fn with_qmp_client(mut self) -> Self {
        self.qmp_client = true;
        self
    }

    fn with_debug_kernel(mut self) -> Self {
        self.debug_kernel = true;
        self
    }

    fn with_fio(mut self) -> Self {
        self.fio = true;
        self
    }

    fn on(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    fn warns(mut self, expected: &'static [&'static str]) -> Self {
        self.expected_warnings = expected;
        self
    }
}

//! What Strait does, shown on the terminal.

mod debug;
mod nic;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::guest::Vmm;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// The main job: a passed-through NIC at work.
    Nic,
    /// The guest's kernel under gdb, with the NIC.
    Debug,
}

/// Shows it.
pub(crate) fn demo(show: Show, vmm: Vmm) -> Result<ExitCode> {
    match show {
        Show::Nic => nic::demo(vmm),
        Show::Debug => debug::demo(vmm),
    }
}

//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::scenario::{self, Selection};
use crate::vmm::Vmm;
use crate::{agent, cache, shell};

/// The lab of Strait: a machine with an IOMMU, KVM and PCI devices in software.
///
/// The first run downloads Debian packages into a cache folder (STRAIT_LAB_CACHE, or strait-lab in
/// the user's cache folder); root is not needed. Consoles and logs of the last run are in .lab/.
#[derive(Parser)]
#[command(name = "cargo lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests of the project; the last line is `N passed, N failed, N skipped`.
    Test {
        /// Only these scenarios; a trailing `*` stands for anything, `unit` for the unit tests.
        names: Vec<String>,
        /// Name the scenarios and do nothing.
        #[arg(long)]
        list: bool,
        /// Run the long cycles too.
        #[arg(long)]
        full: bool,
        /// Who runs the guests; `qemu` shows that the scenarios themselves are right.
        #[arg(long, value_enum, default_value_t = Vmm::Strait)]
        vmm: Vmm,
        /// Words to add to every guest's kernel command line.
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        cmdline: String,
        /// Show the guests' consoles, kernel messages included.
        #[arg(long)]
        live: bool,
    },
    /// Open a shell on the lab host, with strait on its PATH; leave it with `exit`.
    Shell,
    /// Run a shell script on the lab host and exit with its code.
    Run {
        /// The script, for bash.
        script: PathBuf,
        /// Seconds it may take.
        #[arg(long, default_value_t = 600)]
        limit: u64,
        /// Leave strait out, as when it does not build.
        #[arg(long)]
        no_strait: bool,
    },
    /// Remove the cache folder.
    Clean,
    /// Serve the harness inside the lab host.
    #[command(hide = true)]
    Agent,
}

/// Does what the command line says.
pub(crate) fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Test { list: true, .. } => {
            scenario::list();
            Ok(ExitCode::SUCCESS)
        }
        Command::Test {
            names,
            full,
            vmm,
            cmdline,
            live,
            ..
        } => scenario::test(&Selection {
            names,
            full,
            vmm,
            cmdline,
            live,
        }),
        Command::Shell => shell::shell(),
        Command::Run {
            script,
            limit,
            no_strait,
        } => shell::run(&script, limit, !no_strait),
        Command::Clean => cache::clean().map(|()| ExitCode::SUCCESS),
        Command::Agent => agent::serve().map(|()| ExitCode::SUCCESS),
    }
}

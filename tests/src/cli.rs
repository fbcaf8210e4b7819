//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::bench::Part;
use crate::demo::Show;
use crate::guest::Vmm;
use crate::lab::{Kind, Lane};
use crate::probe::{self, Probe};
use crate::scenario::{self, Selection};
use crate::supplies::cache;
use crate::{agent, bench, demo, shell};

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
    /// Boot a guest with the passed-through NIC, show its console and give a verdict; or show gdb at one.
    Demo {
        /// What is shown.
        #[arg(value_enum, default_value_t = Show::Nic)]
        show: Show,
        /// Who runs the guest.
        #[arg(long, value_enum, default_value_t = Vmm::Strait)]
        vmm: Vmm,
    },
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
        /// Only what is tested on this machine, long cycles too.
        #[arg(long, value_enum, conflicts_with_all = ["names", "full"])]
        lane: Option<Lane>,
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
    /// Measure strait beside QEMU; prints a table, writes bench.json beside the logs, and bench.html to be read.
    Bench {
        /// How often each is started.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Only one of them.
        #[arg(long, value_enum)]
        vmm: Option<Vmm>,
        /// Only these parts of a guest with a NIC; all if none is named.
        #[arg(long, value_enum, conflicts_with = "nested")]
        part: Vec<Part>,
        /// Guests with an IOMMU of their own and guests of guests instead; writes bench-nested.json and .html.
        #[arg(long)]
        nested: bool,
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
        /// The kind of machine.
        #[arg(long, value_enum, default_value_t = Kind::Whole)]
        machine: Kind,
        /// Leave strait out, as when it does not build.
        #[arg(long)]
        no_strait: bool,
    },
    /// Remove the cache folder.
    Clean,
    /// Serve the harness inside the lab host.
    #[command(hide = true)]
    Agent {
        /// The port; the virtio port of this purpose if none is named.
        port: Option<PathBuf>,
    },
    /// Keep one virtual machine open inside the lab host.
    #[command(hide = true)]
    IdleVm,
    /// Send commands to a VMM's control socket inside the lab host.
    #[command(hide = true)]
    Qmp { socket: PathBuf, commands: Vec<String> },
    /// Drive the teaching device through VFIO, inside a guest.
    #[command(hide = true, subcommand)]
    Probe(Probe),
}

/// Does what the command line says.
pub(crate) fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Test { list: true, .. } => scenario::list().map(|()| ExitCode::SUCCESS),
        Command::Test {
            names,
            full,
            lane,
            vmm,
            cmdline,
            live,
            ..
        } => scenario::test(&Selection {
            names,
            full,
            lane,
            vmm,
            cmdline,
            live,
        }),
        Command::Demo { show, vmm } => demo::demo(show, vmm),
        Command::Bench {
            rounds,
            vmm,
            part,
            nested,
        } => {
            let both = vec![Vmm::Strait, Vmm::Qemu];
            bench::bench(nested, rounds, &vmm.map_or(both, |vmm| vec![vmm]), &part)
        }
        Command::Shell => shell::shell(),
        Command::Run {
            script,
            limit,
            machine,
            no_strait,
        } => shell::run(&script, limit, machine, !no_strait),
        Command::Clean => cache::clean().map(|()| ExitCode::SUCCESS),
        Command::Agent { port } => agent::serve(port).map(|()| ExitCode::SUCCESS),
        Command::IdleVm => agent::hold_vm().map(|()| ExitCode::SUCCESS),
        Command::Qmp { socket, commands } => agent::speak(&socket, &commands).map(|()| ExitCode::SUCCESS),
        Command::Probe(probe) => probe::run(&probe).map(|()| ExitCode::SUCCESS),
    }
}

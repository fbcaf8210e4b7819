//! `strait-bench`: measures VMMs on this host, shows and compares reports.

mod cli;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, CommandFactory, Parser};
use signal_hook::consts::{SIGINT, SIGTERM};
use strait_bench::real::{Options, Peer, measure};
use strait_bench::{Report, compare, comparison_table, table};

use cli::{Describe, completions, manual};

/// What a shell makes of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Measure what VMMs cost on this host, show and compare reports of it.
#[derive(Debug, Parser)]
#[command(
    name = "strait-bench",
    version,
    about,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = "Example: sudo strait bench --device 01:00.0 --rounds 10 --report DIR"
)]
struct Arguments {
    #[command(subcommand)]
    describe: Option<Describe>,
    #[command(flatten)]
    work: Work,
    #[command(flatten)]
    how: How,
    /// Write bench.json and a page, bench.html, into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "compare")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Work {
    /// Measure guests with this PCI device of the host: an address or a network interface.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Say for each metric whether NEW is better than OLD.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    compare: Vec<PathBuf>,
    /// Show what a report says, as a table on standard output.
    #[arg(long, value_name = "REPORT")]
    show: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct How {
    /// A further VMM: cloud-hypervisor, crosvm or kvmtool; or another qemu or strait.
    #[arg(long, value_name = "NAME=PATH", conflicts_with_all = ["show", "compare"])]
    peer: Vec<Peer>,
    /// How often each VMM is started; fewer than 6 have no intervals.
    #[arg(long, default_value_t = 10, value_parser = cli::rounds, conflicts_with_all = ["show", "compare"])]
    rounds: u32,
    /// Measure this VMM alone.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["show", "compare"])]
    only: Option<String>,
    /// A kernel in place of the host's own.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["show", "compare"], requires = "initrd")]
    kernel: Option<PathBuf>,
    /// Its initial file system; the first program says `BENCH init UPTIME`, `BENCH driver NAME`, and with bench_waits
    /// on its command line `BENCH waits` and waits for a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["show", "compare"], requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Seconds after which a guest counts as hung.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = cli::seconds, conflicts_with_all = ["show", "compare"])]
    limit: u64,
    /// Stream to and from an iperf3 server there, where the device is a NIC; the port is 5201 unless it is named.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = cli::server, conflicts_with_all = ["show", "compare"])]
    net_peer: Option<SocketAddrV4>,
    /// Write to the NVMe drive that is measured, too: what is on it is lost.
    #[arg(long, conflicts_with_all = ["show", "compare"])]
    destroy_data: bool,
}

fn main() -> ExitCode {
    let ended = match cli::parse(env::args_os()) {
        Ok(arguments) => run(arguments),
        Err((help, 0)) => print(&help).map(|()| ExitCode::SUCCESS),
        Err((refusal, code)) => {
            let _ = io::stderr().write_all(refusal.as_bytes());
            return ExitCode::from(code);
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            // That nobody reads it is no reason to fail in another way.
            let _ = writeln!(io::stderr(), "strait-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments {
        describe,
        work,
        how,
        report: to,
    } = arguments;
    if let Some(describe) = describe {
        match describe {
            Describe::Completions { shell } => print(&completions(&shell, Arguments::command()))?,
            Describe::Man { folder } => manual(&folder, Arguments::command())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let [old, new] = work.compare.as_slice() {
        let comparison = compare(&read(old)?, &read(new)?);
        ensure!(
            comparison.pairs > 0,
            "--compare {} {}: they have no figure in common; compare reports of the same measurement",
            old.display(),
            new.display()
        );
        print(&comparison_table(&comparison))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &work.show {
        let report = read(path)?;
        tell(&report, to)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &to {
        // Before the device is taken from the host.
        fs::create_dir_all(folder).with_context(|| format!("--report {} is no folder", folder.display()))?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).context("cannot listen for signals")?;
    }
    let report = measure(&how.options(work.device.unwrap_or_default()), &interrupted)?;
    tell(&report, to)?;
    let broken: Vec<String> = report.broken().iter().map(ToString::to_string).collect();
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(if report.is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INTERRUPTED)
    })
}

impl How {
    fn options(self, device: String) -> Options {
        Options {
            device,
            peers: self.peer,
            rounds: self.rounds,
            only: self.only,
            image: self.kernel.zip(self.initrd),
            limit: Duration::from_secs(self.limit),
            net_peer: self.net_peer,
            destroys_data: self.destroy_data,
        }
    }
}

/// A report, by its file or by the folder that `--report` made.
fn read(path: &Path) -> Result<Report> {
    let file = path.is_dir().then(|| path.join("bench.json"));
    Ok(Report::read(file.as_deref().unwrap_or(path))?)
}

/// Writes the report where it is wanted, and prints the table. A file that cannot be written costs no figures: they are
/// printed all the same.
fn tell(report: &Report, to: Option<PathBuf>) -> Result<()> {
    let written = to.map(|folder| report.write(&folder.join("bench.json")));
    print(&table(report))?;
    written.transpose()?;
    Ok(())
}

fn print(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")
}

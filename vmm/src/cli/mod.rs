//! The command line: argument structs, and errors in one line.

mod completions;
pub mod host;
mod man;
mod run;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub use completions::CompletionsArgs;
pub use host::HostArgs;
pub use man::ManArgs;
pub use run::RunArgs;

/// Pass PCI devices to a virtual machine, and from there on to its own guests.
#[derive(Debug, Parser)]
#[command(
    name = "strait",
    version,
    about,
    after_help = "Exit codes and examples: strait run --help"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more on standard error: -v what changes, -vv details, -vvv each trapped access.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a kernel in a virtual machine, with PCI devices of this host passed through.
    Run(RunArgs),
    /// See and prepare the host's PCI devices.
    Host(HostArgs),
    /// Print a completion script for bash, zsh or fish.
    Completions(CompletionsArgs),
    /// Write manual pages into a folder.
    #[command(hide = true)]
    Man(ManArgs),
}

/// The arguments of this process, or what to print and the exit code.
///
/// # Errors
/// Help and version are "errors" with code 0; everything else is one line and code 2.
pub fn parse() -> Result<Cli, (String, u8)> {
    parse_from(std::env::args_os())
}

fn parse_from(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, (String, u8)> {
    Cli::try_parse_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render().to_string(), 0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => (error.render().to_string(), 2),
        _ => (format!("strait: {}", one_line(&error.render().to_string())), 2),
    })
}

/// clap's message without its usage block, on one line.
fn one_line(message: &str) -> String {
    let says = message.trim_start_matches("error: ");
    let lines: Vec<_> = says
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    format!("{}; `strait --help` explains", lines.join(" "))
}

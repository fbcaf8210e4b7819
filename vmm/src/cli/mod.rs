//! The command line: argument structs, and errors in one line.

mod bench;
mod command_line;
mod completions;
mod ctl;
mod failure;
pub mod host;
mod man;
mod qemu;
mod run;
mod screen;
mod symbols;

pub use bench::{BenchArgs, BenchError};
pub use command_line::{Cli, Command, command, parse};
pub use completions::CompletionsArgs;
pub use ctl::CtlArgs;
pub use failure::{Failure, USAGE};
pub use host::HostArgs;
pub use man::ManArgs;
pub use run::RunArgs;
pub use screen::Screen;
pub use symbols::{SymbolsArgs, SymbolsFailure};

#[cfg(test)]
use command_line::parse_from;

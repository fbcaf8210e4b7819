//! `strait symbols`: a file of symbols for gdb.

use std::path::PathBuf;
use std::{fs, io};

use clap::Args;

use crate::gdb::{SymbolsError, symbols};

/// A file that cannot be read or written, or has no symbols.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsFailure {
    /// The copy of kallsyms.
    #[error("{}: cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// What is in it.
    #[error("{}", path.display())]
    Content {
        /// The copy.
        path: PathBuf,
        /// What is wrong with it.
        source: SymbolsError,
    },
    /// The file for gdb.
    #[error("{}: cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Make a file of symbols for gdb from a guest's /proc/kallsyms, where the kernel's debug information is not at hand.
#[derive(Debug, Args)]
#[command(after_help = "\
In the guest, as root:  cat /proc/kallsyms > kallsyms
Here, with that file:   strait symbols kallsyms guest.sym
                        gdb guest.sym -ex 'target remote :1234'")]
pub struct SymbolsArgs {
    /// A copy of the guest's /proc/kallsyms.
    #[arg(value_name = "KALLSYMS")]
    from: PathBuf,
    /// The file to write.
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

impl SymbolsArgs {
    /// Writes the file.
    ///
    /// # Errors
    /// When one of the files cannot be used, or the first has no symbols.
    pub fn write(&self) -> Result<(), SymbolsFailure> {
        let text = fs::read(&self.from).map_err(|source| SymbolsFailure::Read(self.from.clone(), source))?;
        let file = symbols(&String::from_utf8_lossy(&text)).map_err(|source| SymbolsFailure::Content {
            path: self.from.clone(),
            source,
        })?;
        fs::write(&self.to, file).map_err(|source| SymbolsFailure::Write(self.to.clone(), source))
    }
}

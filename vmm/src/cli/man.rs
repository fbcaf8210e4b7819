//! `strait man`: manual pages, made from the same descriptions as `--help`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::Cli;

/// Write a manual page for each command into a folder.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder, as in /usr/share/man/man1.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl ManArgs {
    /// Writes the pages.
    ///
    /// # Errors
    /// When the folder or a page cannot be written.
    pub fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        clap_mangen::generate_to(Cli::command(), &self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = ManArgs {
            folder: folder.path().join("man1"),
        };
        args.write().expect("pages");
        for page in [
            "strait.1",
            "strait-run.1",
            "strait-host.1",
            "strait-host-bind.1",
            "strait-host-vf.1",
        ] {
            let text = fs::read_to_string(args.folder.join(page)).expect(page);
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}

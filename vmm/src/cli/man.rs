//! `strait man`: manual pages, made from the same descriptions as `--help`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Command};

/// Write a manual page for each command into a folder.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder, as in /usr/share/man/man1.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Manual pages that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the manual pages to {}", folder.display())]
pub struct ManError {
    folder: PathBuf,
    source: io::Error,
}

impl ManArgs {
    /// Writes a page for `command` and each below it, and makes the folder if it is not there.
    ///
    /// # Errors
    /// When the folder or a page cannot be written.
    pub fn write(&self, command: Command) -> Result<(), ManError> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let pages = fs::create_dir_all(&self.folder).and_then(|()| self.pages(&command));
        pages.map_err(|source| ManError {
            folder: self.folder.clone(),
            source,
        })
    }

    /// But for `strait bench`, whose page strait-bench writes under the same name.
    fn pages(&self, command: &Command) -> io::Result<()> {
        let below = command.get_subcommands();
        below
            .filter(|one| !one.is_hide_set() && one.get_display_name() != Some("strait-bench"))
            .try_for_each(|one| self.pages(one))?;
        clap_mangen::Man::new(command.clone())
            .generate_to(&self.folder)
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = ManArgs {
            folder: folder.path().join("man1"),
        };
        args.write(command()).expect("pages");
        for page in [
            "strait.1",
            "strait-run.1",
            "strait-host.1",
            "strait-host-bind.1",
            "strait-host-vf.1",
            "strait-ctl.1",
            "strait-ctl-detach.1",
        ] {
            let text = fs::read_to_string(args.folder.join(page)).expect(page);
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}

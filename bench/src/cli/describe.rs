//! What shells and readers of manuals are told of the command line, made from the same words as `--help`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_complete::aot::generate;

const NAME: &str = "strait-bench";

// Devices where one is wanted, by strait's own list of them.
const BASH_DEVICES: &str = include_str!("../../../resources/completions/strait-bench.bash");
const ZSH_DEVICES: &str = include_str!("../../../resources/completions/devices.zsh");
const FISH_DEVICES: &str = include_str!("../../../resources/completions/strait-bench.fish");

/// What is asked of the program about itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Describe {
    /// Print a completion script for bash, zsh or fish.
    #[command(
        after_help = "bash: strait-bench completions bash > /usr/share/bash-completion/completions/strait-bench"
    )]
    Completions {
        /// The shell that will read the script.
        #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
    /// Write the manual page into a folder.
    Man {
        /// The folder, as in /usr/share/man/man1.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// The script by which a shell completes `command`.
pub(crate) fn completions(shell: &str, command: Command) -> String {
    match shell {
        "zsh" => zsh(&generated(Shell::Zsh, command)),
        "fish" => generated(Shell::Fish, command) + FISH_DEVICES,
        _ => generated(Shell::Bash, command) + BASH_DEVICES,
    }
}

/// Functions must be there before the last lines of the script call them, and behind its first line, which zsh reads.
fn zsh(script: &str) -> String {
    script
        .replace(":DEVICE:_default'", ":DEVICE:_strait_devices'")
        .replacen('\n', &format!("\n{ZSH_DEVICES}\n"), 1)
}

fn generated(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    generate(shell, &mut command, NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes the page for `command` and each below it, and makes the folder if it is not there.
pub(crate) fn manual(folder: &Path, command: Command) -> Result<()> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .with_context(|| {
            let folder = folder.display();
            format!("{folder}: the manual page cannot be written; choose another folder")
        })
}

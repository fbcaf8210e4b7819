//! `strait host`: what the host has, whether it can be passed, and getting it ready and back.

mod bind;
mod doctor;
mod groups;
mod list;
mod listing;
mod names;
mod screen;
mod tree;
mod vf;

use std::error::Error;

use clap::{Args, Subcommand};
use strait_devices::Chain;
use strait_vfio::host::{HostBdf, Kernel, LookupError, Root, find, restore_orphans};

use super::USAGE;

pub use screen::Screen;

/// See and prepare the host's PCI devices.
#[derive(Debug, Args)]
pub struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Show every PCI device with its driver, group, names and uses.
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Say what keeps devices from being passed, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Give devices to vfio-pci, all of them or none.
    #[command(visible_alias = "detach")]
    Bind(bind::BindArgs),
    /// Give devices back to the drivers they had.
    #[command(visible_aliases = ["reattach", "unbind", "unset-override"])]
    Restore(bind::RestoreArgs),
    /// Set the number of a device's virtual functions and show them.
    Vf(vf::VfArgs),
    /// Name the devices for a shell.
    #[command(hide = true)]
    Names,
    /// Give a device to a driver, in driverctl's order of words.
    SetOverride(bind::OverrideArgs),
}

/// Why a command ended without doing what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One sentence.
    pub message: String,
}

impl Failure {
    /// What the user typed cannot be meant.
    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            message: message.into(),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: 1,
            message: Chain(&error).to_string(),
        }
    }
}

impl HostArgs {
    /// Does what was asked for, and returns the exit code.
    ///
    /// # Errors
    /// When it could not be done: then the host is as it was.
    pub fn run(self, root: &Root, kernel: &dyn Kernel, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        give_back_orphans(root, kernel);
        let done = match self.command {
            HostCommand::List(args) => args.run(root, kernel, screen),
            HostCommand::Doctor(args) => args.run(root, kernel, screen),
            HostCommand::Bind(args) => args.run(root, kernel, screen),
            HostCommand::Restore(args) => args.run(root, kernel, screen),
            HostCommand::Vf(args) => args.run(root, kernel, screen),
            HostCommand::Names => names::print(root, screen),
            HostCommand::SetOverride(args) => bind::BindArgs::from(args).run(root, kernel, screen),
        };
        // Whoever closes the pipe, as `head` does, has seen enough.
        match screen.is_closed() {
            true => Ok(0),
            false => done,
        }
    }
}

/// Gives back what a `strait run` took that could not do so itself, because it was killed.
pub fn give_back_orphans(root: &Root, kernel: &dyn Kernel) {
    for (bdf, restored) in restore_orphans(root, kernel) {
        match restored {
            Ok(_) => log::info!("{bdf} was taken for a guest that is gone, and went back"),
            Err(error) => log::warn!(
                "{bdf} was taken for a guest that is gone: {}",
                Failure::from(error).message
            ),
        }
    }
}

/// The functions that `names` stand for, each once.
fn find_all(root: &Root, names: &[String]) -> Result<Vec<HostBdf>, Failure> {
    let mut found: Vec<HostBdf> = Vec::new();
    for name in names {
        let bdf = find(root, name).map_err(|error| match error {
            LookupError::Unknown(_) => Failure::usage(error.to_string()),
            error => error.into(),
        })?;
        if found.contains(&bdf) {
            return Err(Failure::usage(format!("{bdf} is given twice; leave one out")));
        }
        found.push(bdf);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;

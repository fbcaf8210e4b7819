//! `strait host`: what the host has, whether it can be passed, and getting it ready and back.

mod bind;
mod doctor;
mod find;
mod groups;
mod list;
mod listing;
mod names;
mod short;
mod tree;
mod vf;

use clap::{Args, Subcommand};
use strait_vfio::host::Host;
use strait_vfio::host::restore_orphans;

use super::failure::Failure;
use super::screen::Screen;

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

impl HostArgs {
    /// Does what was asked for, and returns the exit code.
    ///
    /// # Errors
    /// When it could not be done: then the host is as it was.
    pub fn run(self, host: Host<'_>, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        give_back_orphans(host);
        let done = match self.command {
            HostCommand::List(args) => args.run(host, screen),
            HostCommand::Doctor(args) => args.run(host, screen),
            HostCommand::Bind(args) => args.run(host, screen),
            HostCommand::Restore(args) => args.run(host, screen),
            HostCommand::Vf(args) => args.run(host, screen),
            HostCommand::Names => names::print(host.root, screen),
            HostCommand::SetOverride(args) => bind::BindArgs::from(args).run(host, screen),
        };
        // Whoever closes the pipe, as `head` does, has seen enough.
        match screen.is_closed() {
            true => Ok(0),
            false => done,
        }
    }
}

/// Gives back what a `strait run` took that could not do so itself, because it was killed.
pub fn give_back_orphans(host: Host<'_>) {
    for (bdf, restored) in restore_orphans(host) {
        match restored {
            Ok(_) => log::info!("{bdf} was taken for a guest that is gone, and went back"),
            Err(error) => log::warn!(
                "{bdf} was taken for a guest that is gone: {}",
                Failure::from(error).message
            ),
        }
    }
}

#[cfg(test)]
mod tests;

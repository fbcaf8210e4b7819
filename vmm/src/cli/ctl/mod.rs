//! `strait ctl`: what is asked of guests that are running, by QMP.

mod attach;
mod choose;
mod connection;
mod description;
mod detach;
mod life;
mod process;
mod show;
mod stats;
mod trouble;
mod wait;

use clap::{Args, Subcommand};
use strait_vfio::host::Root;

use super::failure::Failure;
use super::screen::Screen;
use crate::guests::Guests;
use choose::choose;
use trouble::Trouble;

/// See and control guests that are running.
#[derive(Debug, Args)]
#[command(
    subcommand_precedence_over_arg = true,
    arg_required_else_help = true,
    override_usage = "strait ctl [GUEST] <COMMAND>",
    after_help = AFTER_HELP
)]
pub struct CtlArgs {
    /// The guest: the name that it was started with (`strait run --name`), or the path of its socket. It may be left out
    /// where one guest alone has a name.
    #[arg(value_name = "GUEST")]
    guest: Option<String>,
    // Not required of clap, which would take a word that is mistyped for a guest and not say so.
    #[command(subcommand)]
    command: Option<CtlCommand>,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 the guest refuses or something else is wrong, 2 wrong usage, 3 no such guest is running, 4 it is
another user's, 5 it does not answer, 6 the guest did not let go of a device or power off in time.

Example, of a guest that was started with --name web:
  strait ctl web pause";

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// Show the guests that have a name.
    #[command(visible_alias = "ls")]
    List(show::ListArgs),
    /// Show what a guest is and has.
    #[command(alias = "dominfo")]
    Info(show::InfoArgs),
    /// Show what was counted of a guest: exits by their reasons, CPU time, memory.
    Stats(stats::StatsArgs),
    /// Let the guest stand still.
    #[command(aliases = ["suspend", "stop"])]
    Pause,
    /// Let it go on.
    #[command(alias = "cont")]
    Resume,
    /// Ask the guest to power off, as the button of a machine does.
    #[command(aliases = ["shutdown", "system_powerdown"])]
    Powerdown(life::PowerdownArgs),
    /// Start the guest from the beginning.
    #[command(alias = "system_reset")]
    Reset,
    /// End the guest at once, and wait until its devices are back.
    #[command(alias = "destroy")]
    Quit,
    /// Put a device into a running guest.
    #[command(aliases = ["attach-device", "device_add"])]
    Attach(attach::AttachArgs),
    /// Take a device out of a running guest, and wait until it has left.
    #[command(aliases = ["detach-device", "device_del"])]
    Detach(detach::DetachArgs),
    /// Name the guests for a shell.
    #[command(hide = true)]
    Names,
}

/// What can be asked, as a sentence lists it.
pub(super) fn commands() -> String {
    let ctl = CtlCommand::augment_subcommands(clap::Command::new("ctl"));
    let shown = ctl.get_subcommands().filter(|one| !one.is_hide_set());
    shown.map(clap::Command::get_name).collect::<Vec<_>>().join(", ")
}

impl CtlArgs {
    /// Whether `word` is a command behind `strait ctl`, which no guest can be called.
    pub(super) fn is_command(word: &str) -> bool {
        let ctl = CtlCommand::augment_subcommands(clap::Command::new("ctl"));
        word == "help" || ctl.find_subcommand(word).is_some()
    }

    /// Does what was asked for. Guests are looked for among `guests`, devices on `root`'s host.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn run(self, guests: &Guests, root: &Root, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        let done = self.do_it(guests, root, screen);
        match (screen.is_closed(), done) {
            // Whoever closes the pipe, as `head` does, has seen enough.
            (true, _) | (false, Ok(())) => Ok(0),
            (false, Err(trouble)) => Err(trouble.failure()),
        }
    }

    fn do_it(self, guests: &Guests, root: &Root, screen: &mut Screen<'_>) -> Result<(), Trouble> {
        let wanted = self.guest.as_deref();
        let command = self.command.ok_or_else(|| Trouble::NoCommand {
            word: wanted.unwrap_or_default().to_owned(),
            commands: commands(),
        })?;
        let guest = || choose(guests, wanted);
        match command {
            CtlCommand::List(args) => args.run(guests, screen),
            CtlCommand::Names => show::names(guests, screen),
            CtlCommand::Info(args) => args.run(&mut guest()?, screen),
            CtlCommand::Stats(args) => args.run(&mut guest()?, screen),
            CtlCommand::Pause => life::tell(&mut guest()?, "stop"),
            CtlCommand::Resume => life::tell(&mut guest()?, "cont"),
            CtlCommand::Powerdown(args) => args.run(&mut guest()?),
            CtlCommand::Reset => life::tell(&mut guest()?, "system_reset"),
            CtlCommand::Quit => life::quit(&mut guest()?),
            CtlCommand::Attach(args) => args.run(&mut guest()?, root, screen),
            CtlCommand::Detach(args) => args.run(&mut guest()?, root),
        }
    }
}

#[cfg(test)]
mod tests;

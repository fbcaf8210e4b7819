//! `strait ctl pause`, `resume`, `powerdown`, `reset` and `quit`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::connection::Connection;
use super::process::Process;
use super::trouble::Trouble;
use super::wait::Limit;

/// What a guest has to end when it is told to: its devices go back to the host meanwhile.
const END: Duration = Duration::from_secs(60);

/// Ask the guest to power off, as the button of a machine does.
#[derive(Debug, Args)]
pub(super) struct PowerdownArgs {
    /// Wait until it has, for so long at most: 30, 30s, 5m.
    #[arg(long, value_name = "TIME")]
    wait: Option<Limit>,
}

impl PowerdownArgs {
    pub(super) fn run(self, guest: &mut Connection) -> Result<(), Trouble> {
        let process = process(guest)?;
        guest.execute("system_powerdown", Value::Null)?;
        let Some(Limit(waited)) = self.wait else {
            return Ok(());
        };
        match wait_for_end(guest, process, waited)? {
            true => Ok(()),
            false => Err(Trouble::StillOn {
                guest: guest.guest.clone(),
                waited,
            }),
        }
    }
}

/// Does what takes no argument and is done when it is answered.
pub(super) fn tell(guest: &mut Connection, command: &str) -> Result<(), Trouble> {
    guest.execute(command, Value::Null).map(drop)
}

/// Ends the guest, and waits until it has ended.
pub(super) fn quit(guest: &mut Connection) -> Result<(), Trouble> {
    let process = process(guest)?;
    match guest.execute("quit", Value::Null) {
        // It may be gone before its answer is.
        Ok(_) | Err(Trouble::Gone(_)) => {}
        Err(trouble) => return Err(trouble),
    }
    match wait_for_end(guest, process, END)? {
        true => Ok(()),
        false => Err(Trouble::Silent(guest.guest.clone(), END)),
    }
}

fn process(guest: &mut Connection) -> Result<Option<Process>, Trouble> {
    let strait = guest.execute("x-query-strait", Value::Null)?;
    Ok(strait["pid"].as_u64().and_then(Process::find))
}

/// Whether the guest ends within this time: it hangs up, and then its process ends.
fn wait_for_end(guest: &mut Connection, process: Option<Process>, limit: Duration) -> Result<bool, Trouble> {
    let until = Instant::now() + limit;
    loop {
        match guest.event(until) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(Trouble::Gone(_)) => return Ok(process.is_none_or(|process| process.ends_before(until))),
            Err(trouble) => return Err(trouble),
        }
    }
}

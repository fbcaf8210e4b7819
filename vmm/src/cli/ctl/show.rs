//! `strait ctl list` and `info`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::connection::Connection;
use super::description::{Description, bytes, duration};
use super::trouble::Trouble;
use crate::cli::screen::{Screen, Tone};
use crate::guests::Guests;

/// How long one guest may keep the list of all waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Show the guests that have a name.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Show what a guest is and has.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// A line of the list.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    socket: String,
    /// Nothing where the guest does not answer.
    #[serde(flatten)]
    guest: Option<Seen>,
    /// What is wrong with it, else.
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct Seen {
    status: String,
    pid: Option<u64>,
    cpus: usize,
    memory_bytes: Option<u64>,
    devices: usize,
}

impl ListArgs {
    pub(super) fn run(self, guests: &Guests, screen: &mut Screen<'_>) -> Result<(), Trouble> {
        let listed = listed(guests);
        if self.json {
            return Ok(screen.line(pretty(&listed))?);
        }
        if listed.is_empty() {
            return Ok(());
        }
        let width = listed.iter().map(|one| one.name.len()).max().unwrap_or(0).max(4);
        let heading = format!("{:width$}  STATE    CPUS     MEMORY  DEVICES  PID", "NAME");
        screen.line(screen.paint(Tone::Heading, &heading))?;
        for Listed {
            name, guest, trouble, ..
        } in listed
        {
            screen.line(match guest {
                Some(guest) => format!(
                    "{name:width$}  {:7}  {:4}  {:>9}  {:7}  {}",
                    guest.status,
                    guest.cpus,
                    guest.memory_bytes.map(bytes).unwrap_or_default(),
                    guest.devices,
                    guest.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                ),
                None => format!("{name:width$}  {}", trouble.unwrap_or_default()),
            })?;
        }
        Ok(())
    }
}

/// Names for a shell, a line each, with what stands for each behind a tab.
pub(super) fn names(guests: &Guests, screen: &mut Screen<'_>) -> Result<(), Trouble> {
    for one in listed(guests) {
        let status = one.guest.map(|guest| guest.status);
        screen.line(format!(
            "{}\t{}",
            one.name,
            status.as_deref().unwrap_or("no answer")
        ))?;
    }
    Ok(())
}

fn listed(guests: &Guests) -> Vec<Listed> {
    let mut listed = Vec::new();
    for (name, socket) in guests.all() {
        let name = name.to_string();
        let described = Connection::open(&socket, &name, PATIENCE)
            .and_then(|mut connection| Description::ask(&mut connection));
        let (guest, trouble) = match described {
            // Of a guest that was killed, or has ended by now.
            Err(Trouble::NoSocket(..) | Trouble::Gone(_)) => continue,
            Ok(guest) => (Some(guest.into()), None),
            Err(Trouble::Silent(..)) => (None, Some("no answer".to_owned())),
            Err(trouble) => (None, Some(trouble.failure().message)),
        };
        listed.push(Listed {
            name,
            socket: socket.display().to_string(),
            guest,
            trouble,
        });
    }
    listed
}

impl From<Description> for Seen {
    fn from(guest: Description) -> Self {
        Self {
            status: guest.status,
            pid: guest.pid,
            cpus: guest.cpu_threads.len(),
            memory_bytes: guest.memory_bytes,
            devices: guest.devices.len(),
        }
    }
}

impl InfoArgs {
    pub(super) fn run(self, guest: &mut Connection, screen: &mut Screen<'_>) -> Result<(), Trouble> {
        let described = Description::ask(guest)?;
        if self.json {
            return Ok(screen.line(pretty(&described))?);
        }
        let name = described.name.as_deref().unwrap_or(&guest.guest);
        screen.line(screen.paint(Tone::Heading, name))?;
        let mut facts = vec![("state", described.status.clone())];
        facts.extend(described.uptime_seconds.map(|time| ("for", duration(time))));
        facts.extend(described.pid.map(|pid| ("process", pid.to_string())));
        facts.push(("program", described.version.clone()));
        facts.push(("CPUs", described.cpu_threads.len().to_string()));
        facts.extend(described.memory().map(|memory| ("memory", memory)));
        facts.extend(described.locked_bytes.map(|locked| ("locked", bytes(locked))));
        for (what, value) in facts {
            screen.line(format!("  {what:8} {value}"))?;
        }
        for device in &described.devices {
            let place = device.guest.as_deref().unwrap_or("?");
            screen.line(format!(
                "  {:8} {} is {place} in the guest",
                "device",
                device.short()
            ))?;
        }
        Ok(())
    }
}

/// Print JSON, for programs.
pub(super) fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("strings and numbers are JSON")
}

//! Which guest is meant.

use std::path::Path;
use std::time::Duration;

use super::connection::Connection;
use super::trouble::Trouble;
use crate::guests::{GuestName, Guests};

/// How long a guest may take to answer. It is busy where it starts, or gives a device back.
const PATIENCE: Duration = Duration::from_secs(10);

/// The guest that the user means: by its socket, by its name, or the only one that has a name.
pub(super) fn choose(guests: &Guests, wanted: Option<&str>) -> Result<Connection, Trouble> {
    match wanted {
        Some(path) if path.contains('/') => Connection::open(Path::new(path), path, PATIENCE),
        Some(name) => by_name(guests, name),
        None => the_only_one(guests),
    }
}

fn by_name(guests: &Guests, text: &str) -> Result<Connection, Trouble> {
    let name: GuestName = text
        .parse()
        .map_err(|why| Trouble::BadName(format!("{why}; a path of a socket has a `/`")))?;
    for socket in guests.find(&name) {
        match Connection::open(&socket, text, PATIENCE) {
            // Of a guest that was killed.
            Err(Trouble::NoSocket(..)) => {}
            opened => return opened,
        }
    }
    Err(Trouble::Unknown(text.to_owned()))
}

fn the_only_one(guests: &Guests) -> Result<Connection, Trouble> {
    let mut found: Vec<Connection> = Vec::new();
    for (name, socket) in guests.all() {
        match Connection::open(&socket, &name.to_string(), PATIENCE) {
            Ok(connection) => found.push(connection),
            Err(Trouble::NoSocket(..) | Trouble::Gone(_)) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    match found.len() {
        0 => Err(Trouble::NobodyRuns),
        1 => Ok(found.remove(0)),
        _ => Err(Trouble::Several(
            found.into_iter().map(|connection| connection.guest).collect(),
        )),
    }
}

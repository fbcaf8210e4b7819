//! Who may control the guest: `--qmp` and `--name`.

use std::io;

use crate::control::{Control, Listener, QmpAddress};
use crate::guests::{GuestName, Guests};

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The one that the user named.
    #[error("--qmp {0}: cannot listen there")]
    Address(QmpAddress, #[source] io::Error),
    /// Another guest listens there.
    #[error(
        "--name {0}: a guest of this name is running; give another name, or end that one with `strait ctl {0} quit`"
    )]
    Taken(GuestName),
    /// The one that belongs to the guest's name.
    #[error("--name {0}: cannot listen under this name")]
    Name(GuestName, #[source] io::Error),
}

/// Listens where the user wants it.
///
/// # Errors
/// When a socket cannot be had.
pub fn listen(name: Option<&GuestName>, address: Option<&QmpAddress>) -> Result<Option<Control>, QmpError> {
    let named = name.map(listen_as).transpose()?;
    let chosen = address.map(listen_at).transpose()?;
    let listeners: Vec<Listener> = named.into_iter().chain(chosen).collect();
    Ok(match listeners.is_empty() {
        true => None,
        false => Some(Control::new(listeners)),
    })
}

fn listen_at(address: &QmpAddress) -> Result<Listener, QmpError> {
    Listener::open(address).map_err(|source| QmpError::Address(address.clone(), source))
}

fn listen_as(name: &GuestName) -> Result<Listener, QmpError> {
    let place = Guests::of_this_user().place(name);
    let listener = place.and_then(|path| Listener::open(&QmpAddress::Path(path)));
    listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => QmpError::Taken(name.clone()),
        _ => QmpError::Name(name.clone(), source),
    })
}

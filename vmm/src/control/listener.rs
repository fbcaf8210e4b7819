//! Where clients come.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};

use super::client::Client;
use crate::private_socket::{self, Place};

/// The first descriptor that a service manager passes (sd_listen_fds(3)).
const FIRST_PASSED: i32 = 3;

/// The value of `--qmp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QmpAddress {
    /// A socket that is made.
    Path(PathBuf),
    /// The first socket that the service manager passed.
    Passed,
}

impl fmt::Display for QmpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Passed => f.write_str("LISTEN_FDS"),
        }
    }
}

impl FromStr for QmpAddress {
    type Err = String;

    /// QEMU's `unix:PATH` is a path, too; there is no TCP, on which nobody could be told from the user.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "LISTEN_FDS" => Ok(Self::Passed),
            text if text.starts_with("tcp:") => {
                Err(format!("{text}: QMP is spoken on Unix sockets only; give a path"))
            }
            text => match text.strip_prefix("unix:").unwrap_or(text) {
                path if path.is_empty() || path.contains(',') => Err(format!(
                    "{text:?} is no path of a socket; give a path without commas, or LISTEN_FDS"
                )),
                path => Ok(Self::Path(path.into())),
            },
        }
    }
}

/// A socket that is listened to; one that was made goes with this value.
///
/// Field order is drop order: the place goes while the socket is open.
pub struct Listener {
    place: Option<Place>,
    socket: UnixListener,
}

impl Listener {
    /// Makes the socket at `address`, for this user alone, or takes the one that was passed.
    ///
    /// # Errors
    /// When somebody listens there, another file is there, or no socket was passed.
    pub fn open(address: &QmpAddress) -> io::Result<Self> {
        let (place, socket) = match address {
            QmpAddress::Path(path) => {
                let (place, socket) = private_socket::bind(path)?;
                (Some(place), socket)
            }
            QmpAddress::Passed => (None, passed()?),
        };
        Ok(Self { place, socket })
    }

    /// Where it stands, unless a service manager passed it.
    pub(super) fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(Place::path)
    }

    /// Who came, if somebody did.
    pub(super) fn accept(&self) -> Option<Client> {
        let (stream, _) = self.socket.accept().ok()?;
        Client::new(stream).ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn passed() -> io::Result<UnixListener> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return Err(io::Error::other(
            "no service manager passed a socket to this process (LISTEN_PID, LISTEN_FDS)",
        ));
    }
    let socket = private_socket::inherited(FIRST_PASSED)?;
    if socket_domain(&socket)? != AddressFamily::UNIX || !socket_acceptconn(&socket)? {
        return Err(io::Error::other(
            "the descriptor that was passed is no Unix socket that listens",
        ));
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

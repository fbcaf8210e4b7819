//! Where gdb is listened to, and the line to it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gdbstub::conn::Connection;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::private_socket::{self, Place};

/// The port that `-s` means, as QEMU's.
const USUAL_PORT: u16 = 1234;

/// How long gdb may take to read an answer: the machine waits for it meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// The value of `--gdb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GdbAddress {
    /// An address and port of this host.
    Tcp(SocketAddr),
    /// The path of a socket that is made.
    Unix(PathBuf),
    /// A connection that this process was given.
    Descriptor(RawFd),
}

impl GdbAddress {
    /// What `-s` means.
    pub fn usual() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], USUAL_PORT)))
    }

    /// Whether others than this host's users reach it.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for GdbAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

impl FromStr for GdbAddress {
    type Err = String;

    /// `tcp::1234` is this host's loopback; others are to be given in full.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is none of tcp:[HOST]:PORT, unix:PATH, fd:NUMBER; tcp::1234 is usual");
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        match kind {
            "tcp" => {
                let address = match rest.strip_prefix(':') {
                    Some(port) => format!("127.0.0.1:{port}"),
                    None => rest.replace("localhost:", "127.0.0.1:"),
                };
                // A port of the kernel's choice is one that nobody is told.
                let address = address
                    .parse()
                    .ok()
                    .filter(|address: &SocketAddr| address.port() != 0);
                address.map(Self::Tcp).ok_or_else(wrong)
            }
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "fd" => {
                let number = rest.parse().ok().filter(|number| *number >= 0);
                number.map(Self::Descriptor).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

/// Waits for gdb.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The socket with its place, which goes before it.
    Unix {
        _place: Place,
        listener: UnixListener,
    },
    /// The line that there is already, until it is taken.
    Given(Option<OwnedFd>),
}

impl Listener {
    /// Listens; nobody but this user reaches a socket.
    pub(super) fn open(address: &GdbAddress) -> io::Result<Self> {
        match address {
            GdbAddress::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            GdbAddress::Unix(path) => {
                let (_place, listener) = private_socket::bind(path)?;
                Ok(Self::Unix { _place, listener })
            }
            GdbAddress::Descriptor(number) => Ok(Self::Given(Some(private_socket::inherited(*number)?))),
        }
    }

    /// Readable when somebody comes. Nothing where nobody can come any more.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(listener) => Some(listener.as_fd()),
            Self::Unix { listener, .. } => Some(listener.as_fd()),
            Self::Given(line) => line.as_ref().map(AsFd::as_fd),
        }
    }

    /// Who came, if somebody did.
    pub(super) fn accept(&mut self) -> Option<Line> {
        let fd = match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().ok()?;
                // Packets are small, and gdb waits for each.
                let _ = stream.set_nodelay(true);
                let _ = stream.set_nonblocking(false);
                stream.into()
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().ok()?;
                let _ = stream.set_nonblocking(false);
                stream.into()
            }
            Self::Given(line) => line.take()?,
        };
        // A line that is no socket waits without an end, at its owner's risk.
        let _ = set_socket_timeout(&fd, Timeout::Send, Some(PATIENCE));
        Some(Line(fd))
    }
}

/// The line to a gdb.
#[derive(Debug)]
pub(super) struct Line(OwnedFd);

impl Line {
    /// What has come, at most so much as `buffer` takes; nothing once gdb has gone.
    pub(super) fn read<'b>(&self, buffer: &'b mut [u8]) -> &'b [u8] {
        match rustix::io::read(&self.0, &mut *buffer) {
            Ok(len) => &buffer[..len],
            Err(_) => &[],
        }
    }

    /// The same line, for the other of reader and writer.
    pub(super) fn share(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection for Line {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.write_all(&[byte])
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.0, bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str) -> Result<GdbAddress, String> {
        text.parse()
    }

    #[test]
    fn a_port_alone_is_the_loopbacks() {
        assert_eq!(read("tcp::1234"), Ok(GdbAddress::usual()));
        assert_eq!(read("tcp:localhost:1234"), Ok(GdbAddress::usual()));
        assert!(!GdbAddress::usual().is_public());
        assert!(read("tcp:0.0.0.0:1234").is_ok_and(|address| address.is_public()));
        assert_eq!(read("unix:/run/gdb"), Ok(GdbAddress::Unix("/run/gdb".into())));
        assert_eq!(read("fd:7"), Ok(GdbAddress::Descriptor(7)));
    }

    #[test]
    fn what_is_no_address_is_told_with_one_that_is() {
        for text in [
            "1234",
            "tcp:1234",
            "tcp::99999",
            "tcp::0",
            "tcp:[::1]:0",
            "unix:",
            "fd:x",
            "fd:-1",
            "udp::1",
        ] {
            let refusal = read(text).expect_err("no address");
            assert!(refusal.contains("tcp::1234 is usual"), "{refusal}");
        }
    }

    #[test]
    fn a_socket_is_its_users_alone_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gdb");
        let listener = Listener::open(&GdbAddress::Unix(path.clone())).expect("a socket");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_at_is_made_anew_and_no_other_file_is_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gdb");
        drop(UnixListener::bind(&path).expect("a socket"));
        let address = GdbAddress::Unix(path.clone());
        let listener = Listener::open(&address).expect("a socket in its place");
        assert!(Listener::open(&address).is_err(), "somebody listens at that one");
        drop(listener);
        fs::write(&path, "mine").expect("a file");
        assert!(Listener::open(&address).is_err());
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "mine");
    }

    #[test]
    fn a_descriptor_that_is_not_there_is_refused() {
        assert!(Listener::open(&GdbAddress::Descriptor(9999)).is_err());
    }
}

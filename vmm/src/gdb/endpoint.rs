//! Where gdb is listened to, and the line to it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use gdbstub::conn::Connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use rustix::net::{SendFlags, getpeername};
use rustix::termios::isatty;

use crate::private_socket::{self, Place};

/// The port that `-s` means, as QEMU's.
const USUAL_PORT: u16 = 1234;

/// How long gdb may take to read an answer that the kernel has no more room for: the machine waits for it meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that a line that is no socket is given at a time, when it is ready.
const READY: usize = 512;

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
                private_socket::was_given(number.ok_or_else(wrong)?).map(Self::Descriptor)
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
            GdbAddress::Descriptor(number) => {
                let line = private_socket::inherited(*number)?;
                match is_connection(&line)? {
                    true => Ok(Self::Given(Some(line))),
                    false => Err(io::Error::other("this descriptor is no open connection")),
                }
            }
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

    /// Whether somebody else may come.
    pub(super) fn is_open(&self) -> bool {
        self.fd().is_some()
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
        Some(Line {
            fd,
            answer: Vec::new(),
        })
    }
}

/// The line to a gdb.
#[derive(Debug)]
pub(super) struct Line {
    fd: OwnedFd,
    /// What was said, until it is sent: a stub speaks byte by byte, and an error while it does would undo what it was told.
    answer: Vec<u8>,
}

impl Line {
    /// What has come, at most so much as `buffer` takes; nothing once gdb has gone.
    pub(super) fn read<'b>(&self, buffer: &'b mut [u8]) -> &'b [u8] {
        match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(len) => &buffer[..len],
            Err(_) => &[],
        }
    }

    /// Sends what was said.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let answer = std::mem::take(&mut self.answer);
        send(self.fd.as_fd(), &answer, Instant::now() + PATIENCE)
    }

    /// Whether nobody is at its other end any more.
    pub(super) fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let asked = poll(&mut fds, Some(&Timespec::default()));
        asked.is_ok() && fds[0].revents().intersects(gone)
    }

    /// The same line, for the other of reader and writer.
    pub(super) fn share(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            answer: Vec::new(),
        })
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Connection for Line {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.write_all(&[byte])
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket with somebody at its other end, or a terminal, as serial lines are: what is read and written.
fn is_connection(fd: &OwnedFd) -> io::Result<bool> {
    let is_both = fcntl_getfl(fd)? & OFlags::ACCMODE == OFlags::RDWR;
    Ok(is_both && (getpeername(fd).is_ok() || isatty(fd)))
}

/// Writes all of it, which ends at `end`.
fn send(fd: BorrowedFd<'_>, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(&fd, PollFlags::OUT)];
        match poll(&mut ready, Some(&left.try_into().unwrap_or_default())) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match write_now(fd, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What the line takes without waiting, where it is ready.
fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::net::send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::NOTSOCK) => rustix::io::write(fd, &bytes[..bytes.len().min(READY)]),
        sent => sent,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd as _;
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
        assert_eq!(read("fd:0"), Ok(GdbAddress::Descriptor(0)));
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
    fn who_does_not_read_is_waited_for_once_and_not_for_long() {
        let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let begin = Instant::now();
        let patience = Duration::from_millis(50);
        let sent = send(near.as_fd(), &vec![0; 16 << 20], begin + patience);
        assert_eq!(sent.expect_err("no room").kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= patience);
        drop(far);
        assert!(send(near.as_fd(), b"+", Instant::now() + patience).is_err());
    }

    #[test]
    fn an_answer_goes_out_as_a_whole() {
        let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut line = Line {
            fd: near.into(),
            answer: Vec::new(),
        };
        let far = Line {
            fd: far.into(),
            answer: Vec::new(),
        };
        b"$OK#9a".iter().for_each(|byte| line.write(*byte).expect("room"));
        line.send().expect("room");
        assert_eq!(far.read(&mut [0; 99]), b"$OK#9a");
    }

    #[test]
    fn a_descriptor_that_is_not_there_or_leads_nowhere_is_refused() {
        let refusal = read("fd:9999").expect_err("not open");
        assert_eq!(
            refusal,
            "descriptor 9999 was not open when this process was started"
        );
        assert!(Listener::open(&GdbAddress::Descriptor(9999)).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        let nobody = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let file = tempfile::tempfile().expect("a file");
        let (near, _far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let opens = |fd: RawFd| Listener::open(&GdbAddress::Descriptor(fd)).is_ok();
        let (reader, writer) = io::pipe().expect("a pipe");
        for fd in [
            nobody.as_raw_fd(),
            file.as_raw_fd(),
            reader.as_raw_fd(),
            writer.as_raw_fd(),
        ] {
            assert!(!opens(fd));
        }
        assert!(opens(near.as_raw_fd()));
    }
}

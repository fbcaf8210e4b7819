//! What a service manager is told (sd_notify(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

/// The socket of the service manager.
pub(super) struct Notify {
    socket: OwnedFd,
    manager: SocketAddrUnix,
}

impl Notify {
    /// The one that this process was told of, if it was: a path, or an abstract name behind `@`.
    pub(super) fn inherited() -> Option<Self> {
        let address = env::var_os("NOTIFY_SOCKET")?;
        match Self::at(&address) {
            Ok(notify) => Some(notify),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET is {address:?}, where nobody can be told anything: {error}");
                None
            }
        }
    }

    fn at(address: &OsStr) -> io::Result<Self> {
        let manager = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            [b'/', ..] => SocketAddrUnix::new(address)?,
            // Another family, as `vsock:`.
            _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, manager })
    }

    pub(super) fn tell(&self, state: &str) {
        if let Err(errno) = sendto(&self.socket, state.as_bytes(), SendFlags::NOSIGNAL, &self.manager) {
            log::warn!("The service manager cannot be told {state}: {errno}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    fn heard(manager: &UnixDatagram, address: &str) -> String {
        Notify::at(OsStr::new(address))
            .expect("an address")
            .tell("READY=1");
        let mut bytes = [0; 64];
        let len = manager.recv(&mut bytes).expect("it was told");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    #[test]
    fn a_manager_is_told_by_its_path_and_by_its_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        assert_eq!(heard(&manager, &path.display().to_string()), "READY=1");
        let name = format!("strait-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"))
            .expect("a socket");
        assert_eq!(heard(&manager, &format!("@{name}")), "READY=1");
    }

    #[test]
    fn another_kind_of_address_is_refused_and_a_manager_that_is_gone_is_no_failure() {
        for address in ["", "vsock:2:1", "name"] {
            assert!(Notify::at(OsStr::new(address)).is_err(), "{address}");
        }
        Notify::at(OsStr::new("/nonexistent/notify"))
            .expect("an address")
            .tell("READY=1");
    }
}

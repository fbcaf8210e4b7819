//! The ways in which this module changes the host: a write into sysfs, and loading a module.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::netlink;

/// A driver that needs longer than this to let go of a device waits for a process that uses it.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
/// A disk that works opens at once.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);

/// What the kernel does when it is asked to.
pub trait Kernel {
    /// Writes `text` to the sysfs file at `path`.
    ///
    /// # Errors
    /// What the kernel says; `TimedOut` when it does not come back.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;

    /// Loads module `name` and what it needs.
    ///
    /// # Errors
    /// What modprobe says.
    fn load_module(&self, name: &str) -> io::Result<()>;

    /// Sets what virtual function `index` of `interface` is on the wire.
    ///
    /// # Errors
    /// What the driver of the physical function says.
    fn set_vf_link(&self, interface: &str, index: u32, link: &VfLink) -> io::Result<()>;

    /// Asks for the whole disk whose file is at `path` alone, and lets go of it at once.
    ///
    /// # Errors
    /// `EBUSY` when something of the kernel has it or a part of it, `TimedOut` when the disk does not answer.
    fn claim(&self, path: &Path) -> io::Result<()>;

    /// Waits while the kernel or udev works.
    fn pause(&self, time: Duration);
}

/// What a virtual function is on the wire; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfLink {
    /// Its address.
    pub mac: Option<[u8; 6]>,
    /// Its VLAN, 0 for none.
    pub vlan: Option<u16>,
}

/// The kernel that runs this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningKernel;

impl Kernel for RunningKernel {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let (path, text): (PathBuf, String) = (path.to_owned(), text.to_owned());
        in_time(WRITE_LIMIT, move || write_once(&path, &text))
    }

    fn load_module(&self, name: &str) -> io::Result<()> {
        let output = Command::new("modprobe")
            .arg(name)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("modprobe: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let says = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(says.trim().replace('\n', " ")))
    }

    fn set_vf_link(&self, interface: &str, index: u32, link: &VfLink) -> io::Result<()> {
        netlink::set_vf_link(interface, index, link)
    }

    /// Without waiting for a medium: a drive would close its tray.
    fn claim(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        in_time(CLAIM_LIMIT, move || {
            let flags = libc::O_EXCL | libc::O_NONBLOCK;
            File::options()
                .read(true)
                .custom_flags(flags)
                .open(path)
                .map(drop)
        })
    }

    fn pause(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// In a thread of its own: a write to `unbind` that hangs cannot be called off.
fn in_time<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more once the time is up.
        let _ = sender.send(call());
    });
    match receiver.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the kernel does not come back within {} s", limit.as_secs()),
        )),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the kernel's answer was given up")),
    }
}

/// All in one call, as sysfs wants it, into a file that must be there.
fn write_once(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let written = file.write(text.as_bytes())?;
    match written == text.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

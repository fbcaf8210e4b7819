//! The ways in which this module changes the host: a write into sysfs, and loading a module.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::netlink;

/// A driver that needs longer than this to let go of a device waits for a process that uses it.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

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
    /// In a thread of its own: a write to `unbind` that hangs cannot be called off.
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel();
        let (path, text): (PathBuf, String) = (path.to_owned(), text.to_owned());
        thread::spawn(move || {
            // Nobody listens any more once the time is up.
            let _ = sender.send(write_once(&path, &text));
        });
        match receiver.recv_timeout(WRITE_LIMIT) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the kernel does not come back within {} s", WRITE_LIMIT.as_secs()),
            )),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the write was given up")),
        }
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

    fn pause(&self, time: Duration) {
        thread::sleep(time);
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

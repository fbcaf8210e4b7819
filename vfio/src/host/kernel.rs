//! The ways in which this module changes the host: a write into sysfs, and loading a module.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::netlink;
use super::sysfs::{Root, read_text};
use super::vf_link::VfLink;
use crate::sys;

/// Where modprobe is unless the kernel is told otherwise (CONFIG_MODPROBE_PATH).
const MODPROBE: &str = "/sbin/modprobe";

/// A driver that needs longer than this to let go of a device waits for a process that uses it.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
/// A disk that works opens at once.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);
/// A file whose device nobody works on is read at once.
const READ_LIMIT: Duration = Duration::from_secs(1);
/// After so many devices that the kernel works on the rest is not asked about.
const MAX_LATE: usize = 4;
/// How often it is asked whether to wait on.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// What the kernel does when it is asked to.
pub trait Kernel {
    /// Writes `text` to the sysfs file at `path`, and waits 20 s for the kernel.
    ///
    /// # Errors
    /// What the kernel says; or that it has not come back, see `is_pending`.
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        self.write_while(path, text, &mut |waited| waited < WRITE_LIMIT)
    }

    /// Writes `text` to the sysfs file at `path`. While the kernel works, `go_on` is asked each second, with
    /// the time that has passed, whether to wait on.
    ///
    /// # Errors
    /// What the kernel says; or that it has not come back, see `is_pending`.
    fn write_while(&self, path: &Path, text: &str, go_on: &mut dyn FnMut(Duration) -> bool)
    -> io::Result<()>;

    /// The text of the sysfs file at `path`, for which the kernel may want the lock of its device, as it does for a
    /// write: waits 20 s for it.
    ///
    /// # Errors
    /// What the kernel says; or that it has not come back, see `is_pending`.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The same for each of `paths`, which are waited for 1 s each.
    fn read_each(&self, paths: &[PathBuf]) -> Vec<io::Result<String>> {
        paths.iter().map(|path| self.read(path)).collect()
    }

    /// Loads module `name`, or the modules with an alias that fits it, and what they need.
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

/// Whether a write or a read was waited for in vain. It cannot be called off: the kernel still works on it, holds the
/// device's lock meanwhile, so that every further write would wait as well, and may yet do what it was asked for.
pub(super) fn is_pending(error: &io::Error) -> bool {
    // A driver's own ETIMEDOUT has a number.
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

/// The error for which [`is_pending`] is true.
pub(super) fn pending(waited: Duration) -> io::Error {
    let seconds = waited.as_secs();
    let text = format!(
        "the kernel has not come back within {seconds} s, and this command cannot end before it does"
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// The kernel that runs this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningKernel;

impl Kernel for RunningKernel {
    fn write_while(
        &self,
        path: &Path,
        text: &str,
        go_on: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        let (path, text): (PathBuf, String) = (path.to_owned(), text.to_owned());
        in_time(go_on, move || write_once(&path, &text))
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let path = path.to_owned();
        in_time(&mut |waited| waited < WRITE_LIMIT, move || read_text(&path))
    }

    /// In one thread while all answer.
    fn read_each(&self, paths: &[PathBuf]) -> Vec<io::Result<String>> {
        let mut texts = Vec::new();
        for _ in 0..MAX_LATE {
            let rest = &paths[texts.len()..];
            if rest.is_empty() {
                break;
            }
            texts.extend(read_until_late(rest));
        }
        texts.resize_with(paths.len(), || Err(pending(READ_LIMIT)));
        texts
    }

    fn load_module(&self, name: &str) -> io::Result<()> {
        let mut modprobe = modprobe(&Root::real(), name);
        let output = modprobe.output().map_err(|error| {
            let program = modprobe.get_program().display();
            io::Error::new(error.kind(), format!("{program}: {error}"))
        })?;
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
        in_time(&mut |waited| waited < CLAIM_LIMIT, move || {
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

/// In a thread of its own: a write to `unbind` that hangs cannot be called off. Nor does such a thread end with its
/// process, even if that is killed; it has no files in common with it, so that at least they are closed then, the
/// journal's lock among them.
fn in_time<T: Send + 'static>(
    go_on: &mut dyn FnMut(Duration) -> bool,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        sys::leave_files();
        // Nobody listens any more once the time is up.
        let _ = sender.send(call());
    });
    let start = Instant::now();
    loop {
        match receiver.recv_timeout(WAIT_STEP) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if go_on(start.elapsed()) => {}
            Err(RecvTimeoutError::Timeout) => return Err(pending(start.elapsed())),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the kernel's answer was given up"));
            }
        }
    }
}

/// The texts of `paths`, the last one that of the first file that is late.
fn read_until_late(paths: &[PathBuf]) -> Vec<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    let wanted = paths.to_vec();
    thread::spawn(move || {
        sys::leave_files();
        // Nobody listens any more once one was late.
        wanted.iter().try_for_each(|path| sender.send(read_text(path)))
    });
    let mut texts = Vec::new();
    while texts.len() < paths.len() {
        match receiver.recv_timeout(READ_LIMIT) {
            Ok(text) => texts.push(text),
            Err(_) => {
                texts.push(Err(pending(READ_LIMIT)));
                break;
            }
        }
    }
    texts
}

/// modprobe as the kernel itself runs it (`call_modprobe` in kernel/module/kmod.c): its path from the sysctl, a `--`
/// before the name, and nothing of our environment, in which PATH or MODPROBE_OPTIONS could be anybody's.
fn modprobe(root: &Root, name: &str) -> Command {
    let configured = root.text("proc/sys/kernel/modprobe").unwrap_or_default();
    // The sysctl is empty where the kernel itself must not load modules.
    let program = match Path::new(&configured).is_absolute() {
        true => &configured,
        false => MODPROBE,
    };
    let mut command = Command::new(program);
    command
        .args(["--", name])
        .env_clear()
        .env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")
        .stdin(Stdio::null());
    command
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::host::testing::FakeHost;

    /// Program and arguments, and the names of what is in its environment.
    fn command(host: &FakeHost, name: &str) -> (String, Vec<String>) {
        let command = modprobe(&host.root(), name);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
        let set = command
            .get_envs()
            .map(|(name, _)| name.to_string_lossy().into_owned());
        (words.join(" "), set.collect())
    }

    #[test]
    fn modprobe_is_the_kernels_own() {
        let host = FakeHost::new();
        host.file("proc/sys/kernel/modprobe", "/nix/store/kmod/bin/modprobe\n");
        let (words, environment) = command(&host, "-r");
        assert_eq!(words, "/nix/store/kmod/bin/modprobe -- -r");
        assert_eq!(environment, ["PATH"]);
    }

    #[test]
    fn modprobe_is_never_looked_for() {
        for configured in ["\n", "modprobe\n"] {
            let host = FakeHost::new();
            host.file("proc/sys/kernel/modprobe", configured);
            assert_eq!(command(&host, "vfio-pci").0, "/sbin/modprobe -- vfio-pci");
        }
        assert_eq!(
            command(&FakeHost::new(), "vfio-pci").0,
            "/sbin/modprobe -- vfio-pci"
        );
    }

    #[test]
    fn the_drivers_own_timeout_is_an_answer() {
        assert!(!is_pending(&io::Error::from_raw_os_error(libc::ETIMEDOUT)));
        assert!(is_pending(&pending(WRITE_LIMIT)));
    }

    fn fifo(path: &Path) {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o600.into(), 0).expect("a pipe");
    }

    #[test]
    fn a_file_that_is_late_keeps_no_other_from_being_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "igb\n").expect("a file");
        // Nobody writes into the pipe, so that opening it waits.
        fifo(&path("b"));
        let texts = RunningKernel.read_each(&[path("a"), path("b"), path("c"), path("a")]);
        let told: Vec<String> = texts
            .into_iter()
            .map(|text| text.unwrap_or_else(|error| error.to_string()))
            .collect();
        let missing = "No such file or directory (os error 2)";
        assert_eq!(told, ["igb", &pending(READ_LIMIT).to_string(), missing, "igb"]);
    }

    #[test]
    fn many_files_that_are_late_are_not_all_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        fifo(&pipe);
        let texts = RunningKernel.read_each(&vec![pipe; 1000]);
        let late = texts.iter().filter(|text| text.as_ref().is_err_and(is_pending));
        assert_eq!(late.count(), 1000);
    }

    #[test]
    fn a_call_that_hangs_holds_no_file_open() {
        let file = tempfile::tempfile().expect("a file");
        let open = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        assert!(Path::new(&open).exists());
        let held = in_time(&mut |_| true, {
            let open = open.clone();
            move || Ok(Path::new(&open).symlink_metadata().is_ok())
        });
        assert!(!held.expect("an answer"));
        assert!(Path::new(&open).exists());
    }

    #[test]
    fn a_write_is_waited_for_as_long_as_one_likes() {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("sriov_numvfs");
        self::fifo(&fifo);
        // Nobody reads the pipe, so that opening it waits.
        let error = RunningKernel
            .write_while(&fifo, "1", &mut |_| false)
            .expect_err("nobody listens");
        assert!(is_pending(&error), "{error}");
        // The third time it is asked, somebody does.
        let (mut asked, mut reader) = (0, None);
        let written = RunningKernel.write_while(&fifo, "2", &mut |_| {
            asked += 1;
            if asked == 3 {
                let file = File::options().read(true).write(true).open(&fifo);
                reader = Some(file.expect("a pipe"));
            }
            asked < 100
        });
        written.expect("read");
        assert!(asked >= 3);
    }
}

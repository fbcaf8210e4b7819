//! Sockets in the file system that no other user reaches.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open, umask};

/// How long another process may keep a folder locked. One of ours does for a moment.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes of the longest path of a socket: `sun_path` with a zero behind it (unix(7)).
const MAX_PATH: usize = 107;

/// Where a socket stands that was made; it goes with this value, unless another file has come into its place.
///
/// The socket must be open until then: so long no other file gets its number.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// The file system and the number of the file.
    file: (u64, u64),
}

/// Makes a socket, in the place of one that a killed process left: nobody listens at that.
///
/// # Errors
/// When there is another file, or a socket that somebody listens at, or the folder cannot be written.
pub fn bind(path: &Path) -> io::Result<(Place, UnixListener)> {
    let len = path.as_os_str().len();
    if len > MAX_PATH {
        return Err(io::Error::other(format!(
            "the path of a socket has at most {MAX_PATH} bytes, and this one has {len}; give a shorter one"
        )));
    }
    let lock = lock_folder(path);
    let listener = match bind_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            // Another start may be about to replace it, too, and its socket would be taken for the old one.
            lock.as_ref().map_err(in_the_way)?;
            fs::remove_file(path)?;
            bind_private(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_socket(path) => {
            return Err(io::Error::other("another file stands there, which is no socket"));
        }
        bound => bound,
    }?;
    let file = number(&fs::symlink_metadata(path)?);
    let path = path.to_owned();
    listener.set_nonblocking(true)?;
    Ok((Place { path, file }, listener))
}

/// Checks that this process was started with a descriptor. Those of its own are closed when it starts another
/// program (O_CLOEXEC, proc_pid_fdinfo(5)).
///
/// # Errors
/// When it was not, in a sentence.
pub fn was_given(number: RawFd) -> Result<RawFd, String> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    match flags {
        Some(flags) if flags & OFlags::CLOEXEC.bits() == 0 => Ok(number),
        _ => Err(format!(
            "descriptor {number} was not open when this process was started"
        )),
    }
}

/// A copy of a descriptor that this process was started with.
///
/// # Errors
/// When it is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this, number, PidfdGetfdFlags::empty())?)
}

impl Place {
    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _lock = lock_folder(&self.path);
        if fs::symlink_metadata(&self.path).is_ok_and(|found| number(&found) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Keeps those out of the folder who make or remove a socket there by this module, until it is dropped.
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    let mut locked = flock(&folder, FlockOperation::NonBlockingLockExclusive);
    for _ in 1..TRIES {
        if locked.is_ok() {
            break;
        }
        sleep(PAUSE);
        locked = flock(&folder, FlockOperation::NonBlockingLockExclusive);
    }
    locked?;
    Ok(folder)
}

fn in_the_way(error: &io::Error) -> io::Error {
    io::Error::other(format!(
        "nobody listens at the socket there, but its folder cannot be locked to replace it ({error}); remove it"
    ))
}

fn is_abandoned(path: &Path) -> bool {
    is_socket(path)
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn number(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// No other user may connect at any moment: the mode is there with the socket.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn of_many_that_replace_a_dead_socket_at_once_one_gets_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        for _ in 0..50 {
            drop(UnixListener::bind(&path).expect("free"));
            let together = Barrier::new(4);
            let start = || {
                together.wait();
                bind(&path)
            };
            let bound = thread::scope(|scope| {
                let starts = [(); 4].map(|()| scope.spawn(start));
                starts.map(|started| started.join().expect("no panic"))
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
            for error in bound.iter().filter_map(|bound| bound.as_ref().err()) {
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
            UnixStream::connect(&path).expect("the one listens");
        }
    }

    #[test]
    fn a_socket_goes_and_what_came_into_its_place_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        drop(bind(&path).expect("free"));
        assert!(!path.exists());
        let bound = bind(&path).expect("free");
        fs::remove_file(&path).expect("ours");
        let other = bind(&path).expect("free");
        drop(bound);
        UnixStream::connect(&path).expect("the other listens");
        drop(other);
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_a_socket_is_told_of_in_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let refusal = |name: &str| bind(&folder.path().join(name)).expect_err("no place").to_string();
        fs::write(folder.path().join("notes"), "").expect("room");
        assert!(refusal("notes").contains("no socket"));
        let long = refusal(&"x".repeat(MAX_PATH));
        assert!(long.contains("at most 107 bytes"), "{long}");
    }

    #[test]
    fn a_folder_that_another_keeps_locked_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let locked = lock_folder(&path).expect("a lock");
        let (place, listener) = bind(&path).expect("the place is free all the same");
        drop(listener);
        std::mem::forget(place);
        let refused = bind(&path).expect_err("it cannot be replaced").to_string();
        assert!(
            refused.contains("cannot be locked") && refused.contains("remove it"),
            "{refused}"
        );
        drop(locked);
        bind(&path).expect("it can");
    }
}

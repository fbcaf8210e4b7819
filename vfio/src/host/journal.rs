//! The undo journal: what a device was before it was taken, one small file each below `/run/strait/undo`.
//!
//! An entry is on the disk before its device is touched, and goes when the device is back. `/run` is empty
//! after a reboot, as the bindings are.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::HostBdf;
use super::hint;
use super::sysfs::{Root, names_in, read_text};

const STATE: &str = "run/strait";
const FOLDER: &str = "run/strait/undo";
const LOCK: &str = "run/strait/lock";
/// Who may write here says what root will do; who may read sees no secret.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// Who may open the lock may hold it (flock(2) asks for no right to write).
const LOCK_MODE: u32 = 0o600;
/// First line of an entry.
const MAGIC: &str = "strait undo 1";
/// In place of a driver where there is none; no driver has such a name.
const NOTHING: &str = "-";

/// A device that was taken, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoEntry {
    /// The function's address on the host.
    pub bdf: HostBdf,
    /// Name of the driver it had before.
    pub driver: Option<String>,
    /// What `driver_override` said before.
    pub override_driver: Option<String>,
    /// The driver it was given to.
    pub bound: String,
    /// The process it was taken for; with its end the device goes back.
    pub owner: Option<Owner>,
}

/// A process, told apart from a later one with the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Number of the process.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

/// An entry that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It does not make sense.
    #[error(
        "the undo journal {path} is damaged; `strait host restore {bdf}` gives the device back without it"
    )]
    Damaged {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Path of the file.
        path: String,
    },
    /// It cannot be read or written.
    #[error("cannot use the undo journal {path}{}", hint::rights(.source))]
    File {
        /// Path of the file.
        path: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
}

impl Owner {
    /// The process that runs this.
    pub fn this(root: &Root) -> Option<Self> {
        Self::read(root, std::process::id())
    }

    /// Process `pid`, if it is there.
    pub fn read(root: &Root, pid: u32) -> Option<Self> {
        let text = root.text(format!("proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; field 3 follows the last one.
        let (_, fields) = text.rsplit_once(')')?;
        let started = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Whether it still runs.
    pub fn is_alive(self, root: &Root) -> bool {
        Self::read(root, self.pid) == Some(self)
    }
}

/// Keeps other commands from changing devices for as long as the file is open, and says so where another one does.
///
/// # Errors
/// When there is no place for the lock.
pub(super) fn lock(root: &Root) -> Result<File, JournalError> {
    let path = root.path(LOCK);
    let lock = || {
        make_folders(&root.path(FOLDER))?;
        // Also what an earlier version made, by the umask of its time.
        for folder in [STATE, FOLDER] {
            set_mode(&root.path(folder), FOLDER_MODE)?;
        }
        let mut options = File::options();
        let file = options.create(true).append(true).mode(LOCK_MODE).open(&path)?;
        set_mode(&path, LOCK_MODE)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        log::warn!("waiting for another strait command, which holds /{LOCK}");
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|source| file_error(LOCK, source))
}

/// Puts `entry` on the disk: whole or not at all.
pub(super) fn write(root: &Root, entry: &UndoEntry) -> Result<(), JournalError> {
    let text = |name: &Option<String>| name.clone().unwrap_or_else(|| NOTHING.to_owned());
    let owner = match entry.owner {
        Some(Owner { pid, started }) => format!("{pid} {started}"),
        None => NOTHING.to_owned(),
    };
    let content = format!(
        "{MAGIC}\ndriver {}\noverride {}\nbound {}\nowner {owner}\n",
        text(&entry.driver),
        text(&entry.override_driver),
        entry.bound
    );
    write_whole(&root.path(place(entry.bdf)), &content)
        .map_err(|source| file_error(&place(entry.bdf), source))
}

/// The entry of `bdf`, if it was taken.
pub(super) fn read(root: &Root, bdf: HostBdf) -> Result<Option<UndoEntry>, JournalError> {
    match read_text(&root.path(place(bdf))) {
        Ok(text) => match parse(bdf, &text) {
            Some(entry) => Ok(Some(entry)),
            None => Err(JournalError::Damaged {
                bdf,
                path: format!("/{}", place(bdf)),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error(&place(bdf), source)),
    }
}

/// Forgets `bdf`, whether it was known or not.
pub(super) fn remove(root: &Root, bdf: HostBdf) -> Result<(), JournalError> {
    match fs::remove_file(root.path(place(bdf))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(&place(bdf), error)),
        _ => Ok(()),
    }
}

/// All devices with an entry, also a damaged one.
pub fn taken(root: &Root) -> Vec<HostBdf> {
    let names = names_in(&root.path(FOLDER));
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

fn place(bdf: HostBdf) -> String {
    format!("{FOLDER}/{bdf}")
}

fn file_error(place: &str, source: io::Error) -> JournalError {
    JournalError::File {
        path: format!("/{place}"),
        source,
    }
}

fn parse(bdf: HostBdf, text: &str) -> Option<UndoEntry> {
    let lines: Vec<&str> = text.lines().collect();
    let [MAGIC, driver, override_driver, bound, owner] = lines[..] else {
        return None;
    };
    let name = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(' ')?;
        (is_driver_name(value) || value == NOTHING).then(|| value.to_owned())
    };
    let some = |value: String| (value != NOTHING).then_some(value);
    let owner = match owner.strip_prefix("owner ")? {
        NOTHING => None,
        numbers => {
            let (pid, started) = numbers.split_once(' ')?;
            let (pid, started) = (pid.parse().ok()?, started.parse().ok()?);
            Some(Owner { pid, started })
        }
    };
    Some(UndoEntry {
        bdf,
        driver: some(name(driver, "driver")?),
        override_driver: some(name(override_driver, "override")?),
        bound: some(name(bound, "bound")?)?,
        owner,
    })
}

/// What can be the name of a driver, and of a folder in sysfs.
pub(super) fn is_driver_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b' ');
    !name.is_empty() && name.len() <= 64 && !name.starts_with(['.', '-']) && name.bytes().all(plain)
}

/// Makes the folder at `path` and those above it that are missing, whatever the umask is.
fn make_folders(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    make_folders(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| set_mode(path, FOLDER_MODE)),
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    match fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        true => Ok(()),
        false => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
}

/// Writes a file beside its place, has it on the disk, and moves it there.
pub(super) fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folders(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft: PathBuf = folder.join(format!(".{name}.new"));
    let mut file = File::create(&draft)?;
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(FILE_MODE)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // What is left of a failed write is of no use.
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> UndoEntry {
        UndoEntry {
            bdf: "01:00.0".parse().expect("a name"),
            driver: Some("igb".to_owned()),
            override_driver: None,
            bound: "vfio-pci".to_owned(),
            owner: Some(Owner { pid: 7, started: 99 }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::at(folder.path());
        write(&root, &entry()).expect("written");
        assert_eq!(read(&root, entry().bdf).expect("read"), Some(entry()));
        assert_eq!(taken(&root), [entry().bdf]);
        remove(&root, entry().bdf).expect("removed");
        assert_eq!(read(&root, entry().bdf).expect("read"), None);
        assert!(taken(&root).is_empty());
    }

    #[test]
    fn no_umask_lets_others_write_or_keeps_them_from_reading() {
        let mode = |root: &Root, path: &str| {
            let permissions = fs::metadata(root.path(path)).expect("there").permissions();
            format!("{:o}", permissions.mode() & 0o7777)
        };
        for mask in [0o000, 0o077] {
            let folder = tempfile::tempdir().expect("a folder");
            let root = Root::at(folder.path());
            let before = rustix::process::umask(mask.into());
            let locked = lock(&root);
            let written = write(&root, &entry());
            rustix::process::umask(before);
            locked.and(written).expect("written");
            assert_eq!(mode(&root, STATE), "755");
            assert_eq!(mode(&root, FOLDER), "755");
            assert_eq!(mode(&root, &place(entry().bdf)), "644");
            assert_eq!(mode(&root, LOCK), "600");
        }
    }

    #[test]
    fn a_folder_that_others_may_write_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::at(folder.path());
        fs::create_dir_all(root.path(FOLDER)).expect("a folder");
        for path in [STATE, FOLDER] {
            fs::set_permissions(root.path(path), Permissions::from_mode(0o777)).expect("ours");
        }
        lock(&root).expect("a lock");
        for path in [STATE, FOLDER] {
            let mode = fs::metadata(root.path(path)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
    }

    #[test]
    fn every_cut_entry_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::at(folder.path());
        write(&root, &entry()).expect("written");
        let text = fs::read_to_string(root.path(place(entry().bdf))).expect("there");
        // Without its last line's end it is whole; cut into the last number it reads as another process.
        let lines: Vec<&str> = text.lines().collect();
        for kept in 0..lines.len() {
            assert_eq!(
                parse(entry().bdf, &lines[..kept].join("\n")),
                None,
                "{kept} lines"
            );
        }
        assert_eq!(parse(entry().bdf, &text.replace("igb", "../../etc")), None);
        assert_eq!(
            parse(entry().bdf, &text.replace("bound vfio-pci", "bound -")),
            None
        );
    }
}

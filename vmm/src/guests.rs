//! Guests by their names: where the sockets stand at which they are controlled.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::geteuid;

/// Most bytes of a name: the path of a socket has room for 107 (unix(7)).
const MAX_NAME: usize = 64;

/// What a socket's name ends with, behind the guest's.
const EXTENSION: &str = "sock";

/// Whoever may write into a folder could put another socket in a guest's place.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A guest's name, by which `strait ctl` finds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestName(String);

impl FromStr for GuestName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match starts_well && text.len() <= MAX_NAME && text.chars().all(is_fine) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "{text:?} is no name of a guest; give 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`, the first a \
                 letter or a digit"
            )),
        }
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folders in which the guests of a user have their sockets. A new one goes into the first.
pub struct Guests {
    folders: Vec<PathBuf>,
    user: u32,
}

impl Guests {
    /// Those of this process's user.
    pub fn of_this_user() -> Self {
        let user = geteuid().as_raw();
        let session = PathBuf::from(format!("/run/user/{user}"));
        // Of another user after `su`, which leaves the variable as it was; the owner must be its user
        // (XDG Base Directory Specification).
        let own = env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute() && *folder != session)
            .filter(|folder| fs::metadata(folder).is_ok_and(|found| found.uid() == user));
        let has_session = session.is_dir();
        Self {
            folders: folders(user, own, has_session.then_some(session)),
            user,
        }
    }

    /// Those in one folder.
    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            folders: vec![folder.to_owned()],
            user: geteuid().as_raw(),
        }
    }

    /// Where a new guest's socket is to stand; the folder is there then.
    ///
    /// # Errors
    /// When the folder cannot be made, or others could put something into it.
    pub fn place(&self, name: &GuestName) -> io::Result<PathBuf> {
        let folder = &self.folders[0];
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let why = format!("cannot make the folder {}: {error}", folder.display());
                return Err(io::Error::new(error.kind(), why));
            }
            _ => {}
        }
        match fs::symlink_metadata(folder) {
            Ok(found) if self.trusts(&found) => Ok(socket_in(folder, name)),
            Ok(_) => Err(io::Error::other(format!(
                "{} is no folder that user {} alone can write to; take it away",
                folder.display(),
                self.user
            ))),
            Err(error) => Err(error),
        }
    }

    /// Where guests of this name have or had their sockets, at one of which somebody may listen.
    pub fn find(&self, name: &GuestName) -> Vec<PathBuf> {
        let sockets = self.trusted().map(|folder| socket_in(folder, name));
        sockets.filter(|socket| socket.exists()).collect()
    }

    /// All names with their sockets, at some of which nobody may listen any more.
    pub fn all(&self) -> Vec<(GuestName, PathBuf)> {
        let mut found: Vec<(GuestName, PathBuf)> = Vec::new();
        for file in self.trusted().flat_map(fs::read_dir).flatten().flatten() {
            let path = file.path();
            let name = path.file_stem().and_then(OsStr::to_str).map(str::parse);
            let is_socket = path.extension().is_some_and(|end| end == EXTENSION);
            if let (Some(Ok(name)), true) = (name, is_socket) {
                found.push((name, path));
            }
        }
        found.sort();
        found
    }

    fn trusted(&self) -> impl Iterator<Item = &PathBuf> {
        let is_trusted =
            |folder: &&PathBuf| fs::symlink_metadata(folder).is_ok_and(|found| self.trusts(&found));
        self.folders.iter().filter(is_trusted)
    }

    fn trusts(&self, found: &Metadata) -> bool {
        found.is_dir() && found.uid() == self.user && found.mode() & WRITABLE_BY_OTHERS == 0
    }
}

fn socket_in(folder: &Path, name: &GuestName) -> PathBuf {
    folder.join(format!("{name}.{EXTENSION}"))
}

/// A folder that the user chose (`own`) is the only one. Root's services have no session, and its session's folder goes
/// when it ends: /run/strait is there for both.
fn folders(user: u32, own: Option<PathBuf>, session: Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(own) = own {
        return vec![own.join("strait")];
    }
    if user == 0 {
        return vec!["/run/strait".into()];
    }
    let session = session.map(|folder| folder.join("strait"));
    let private = PathBuf::from(format!("/tmp/strait-{user}"));
    session.into_iter().chain([private]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn name(text: &str) -> GuestName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_name_is_a_file_name_and_no_option() {
        for text in ["web", "7", "db-1.test_b"] {
            assert_eq!(name(text).to_string(), text);
        }
        for text in ["", "-v", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            let refused = text.parse::<GuestName>().expect_err(text);
            assert!(refused.contains("is no name of a guest; give"), "{refused}");
        }
    }

    #[test]
    fn each_user_has_folders_that_last_as_long_as_his_guests() {
        let paths = |user, own: Option<&str>, session: Option<&str>| {
            let found = folders(user, own.map(PathBuf::from), session.map(PathBuf::from));
            found
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths(7, Some("/home/a"), Some("/run/user/7")), ["/home/a/strait"]);
        assert_eq!(
            paths(7, None, Some("/run/user/7")),
            ["/run/user/7/strait", "/tmp/strait-7"]
        );
        assert_eq!(paths(7, None, None), ["/tmp/strait-7"]);
        assert_eq!(paths(0, None, Some("/run/user/0")), ["/run/strait"]);
    }

    #[test]
    fn a_new_folder_is_private_and_its_sockets_are_found() {
        let above = tempfile::tempdir().expect("a folder");
        let guests = Guests::at(&above.path().join("strait"));
        assert_eq!((guests.all(), guests.find(&name("b"))), (vec![], vec![]));
        let place = guests.place(&name("b")).expect("a place");
        let mode = fs::metadata(above.path().join("strait"))
            .expect("a folder")
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        for file in ["b.sock", "a.sock", "notes", "-x.sock"] {
            fs::write(above.path().join("strait").join(file), "").expect("room");
        }
        assert_eq!(guests.find(&name("b")), [place.clone()].to_vec());
        let all = guests.all();
        assert_eq!(
            all.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(all[1].1, place);
    }

    #[test]
    fn a_folder_that_others_write_to_is_not_used() {
        let above = tempfile::tempdir().expect("a folder");
        let guests = Guests::at(above.path());
        fs::write(above.path().join("a.sock"), "").expect("room");
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o777)).expect("ours");
        assert_eq!((guests.all(), guests.find(&name("a"))), (vec![], vec![]));
        let refused = guests.place(&name("a")).expect_err("not private").to_string();
        assert!(refused.contains("alone can write to; take it away"), "{refused}");
    }
}

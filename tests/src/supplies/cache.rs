//! The folder that keeps what was downloaded and unpacked. It lives outside the checkout, so that
//! a fresh clone finds it again.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The cache folder. A lab that runs holds its lock shared, one that prepares holds it alone: what
/// a lab runs from is never replaced under it.
pub(crate) struct Cache {
    folder: PathBuf,
    /// The kernel releases the lock when the process ends.
    lock: File,
}

impl Cache {
    /// Opens the cache folder and waits for another lab that is preparing it.
    pub(crate) fn open() -> Result<Self> {
        let folder = folder()?;
        let lock = fs::create_dir_all(&folder).and_then(|()| File::create(folder.join("lock")));
        let lock = lock.with_context(|| {
            let folder = folder.display();
            format!("Cannot write in {folder}, set STRAIT_LAB_CACHE to a folder for 2 GiB of packages")
        })?;
        let cache = Self { folder, lock };
        cache.share()?;
        Ok(cache)
    }

    /// Waits until no other lab uses the folder, then keeps others out.
    pub(crate) fn take_alone(&self) -> Result<()> {
        if self.lock.try_lock().is_err() {
            eprintln!("Waiting for the labs that use {}", self.folder.display());
            self.lock.lock().context("Cannot lock the cache folder")?;
        }
        Ok(())
    }

    /// Lets other labs use the folder too.
    pub(crate) fn share(&self) -> Result<()> {
        if self.lock.try_lock_shared().is_err() {
            eprintln!("Waiting for another lab that prepares {}", self.folder.display());
            self.lock.lock_shared().context("Cannot lock the cache folder")?;
        }
        Ok(())
    }

    /// A path inside the cache folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// Makes a folder inside the cache.
    pub(crate) fn make_folder(&self, relative: &str) -> Result<PathBuf> {
        let path = self.path(relative);
        fs::create_dir_all(&path).with_context(|| format!("Cannot create {}", path.display()))?;
        Ok(path)
    }

    /// Whether `name` was stamped with exactly this content.
    pub(crate) fn is_stamped(&self, name: &str, content: &str) -> bool {
        fs::read_to_string(self.stamp(name)).is_ok_and(|found| found == content)
    }

    /// Records that `name` is complete. Written last, so that an interrupted run starts over.
    pub(crate) fn write_stamp(&self, name: &str, content: &str) -> Result<()> {
        let path = self.stamp(name);
        fs::write(&path, content).with_context(|| format!("Cannot write {}", path.display()))
    }

    /// Forgets that `name` is complete.
    pub(crate) fn remove_stamp(&self, name: &str) -> Result<()> {
        let path = self.stamp(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("Cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn stamp(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.stamp"))
    }
}

/// Removes the cache folder, once no lab runs from it.
pub(crate) fn clean() -> Result<()> {
    let folder = folder()?;
    if !folder.exists() {
        eprintln!("{} is not there, nothing to remove", folder.display());
        return Ok(());
    }
    if !looks_like_ours(&folder) {
        bail!(
            "{} does not look like a lab cache, remove it by hand",
            folder.display()
        );
    }
    let cache = Cache::open()?;
    cache.take_alone()?;
    fs::remove_dir_all(&folder)
        .with_context(|| format!("Cannot remove the cache folder {}", folder.display()))?;
    eprintln!("Removed {}", folder.display());
    Ok(())
}

/// A mistyped `STRAIT_LAB_CACHE=/home/me` must not cost anyone a home folder.
fn looks_like_ours(folder: &Path) -> bool {
    folder.join("lock").is_file()
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("STRAIT_LAB_CACHE").filter(|value| !value.is_empty()) {
        return std::path::absolute(PathBuf::from(folder)).context("STRAIT_LAB_CACHE is not a usable path");
    }
    if let Some(base) = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(base).join("strait-lab"));
    }
    let home = env::var_os("HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let accounts = || fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = home.or_else(|| home_in(&accounts(), rustix::process::getuid().as_raw()));
    let home =
        home.context("There is no home folder to keep downloads in: set STRAIT_LAB_CACHE to a folder")?;
    Ok(home.join(".cache/strait-lab"))
}

/// The home of a user who is not told it, as cargo and rustup find it.
fn home_in(accounts: &str, user: u32) -> Option<PathBuf> {
    let mut entries = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|fields| fields.get(2) == Some(&user.to_string().as_str()))?;
    entry.get(5).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_without_the_environment() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
        assert_eq!(home_in(accounts, 1000), Some(PathBuf::from("/home/ann")));
        assert_eq!(home_in(accounts, 1001), None);
    }
}

//! Unpacking verified packages into one tree, without installing them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use super::Apt;
use crate::supplies::command;
use crate::supplies::progress::Counter;

impl Apt {
    /// Unpacks the packages into `root`, which is created with the merged /usr of Debian.
    pub(crate) fn unpack(packages: &[PathBuf], root: &Path) -> Result<()> {
        create_merged_usr(root)?;
        let queue = Mutex::new(packages.iter());
        let counter = Mutex::new((0, Counter::new("Unpacking", packages.len() as u64, "packages")));
        let workers = thread::available_parallelism().map_or(1, usize::from).min(4);
        let take = || queue.lock().ok()?.next();
        let work = || -> Result<()> {
            while let Some(package) = take() {
                unpack_one(package, root)?;
                if let Ok(mut counter) = counter.lock() {
                    counter.0 += 1;
                    let done = counter.0;
                    counter.1.show(done);
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("A thread that unpacks packages panicked"),
            })
        })?;
        if let Ok((_, counter)) = counter.into_inner() {
            counter.finish();
        }
        Ok(())
    }
}

fn create_merged_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let folder = root.join("usr").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}", folder.display()))?;
        symlink(format!("usr/{name}"), root.join(name))
            .with_context(|| format!("Cannot create a link in {}", root.display()))?;
    }
    Ok(())
}

/// `dpkg -x` of Debian 12 replaces the links of a merged /usr by folders; tar can be told not to.
fn unpack_one(package: &Path, root: &Path) -> Result<()> {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    let mut reader = command::program("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("Cannot start dpkg-deb")?;
    let tar = reader.stdout.take().context("dpkg-deb has no output")?;
    let writer = command::program("tar")
        .args([
            "--extract",
            "--keep-directory-symlink",
            "--no-same-owner",
            "--directory",
        ])
        .arg(root)
        .stdin(tar)
        .output()
        .context("Cannot start tar")?;
    let read = reader.wait().context("Cannot wait for dpkg-deb")?;
    if !read.success() || !writer.status.success() {
        bail!(
            "Cannot unpack {name}: {}",
            String::from_utf8_lossy(&writer.stderr).trim()
        );
    }
    Ok(())
}

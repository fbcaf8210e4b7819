//! What the lab needs of the build machine, asked before anything is downloaded or built. What is missing is
//! said in one line, with what to do.

mod memory;

use std::env;
use std::path::Path;

use anyhow::{Context, Result, ensure};

pub(crate) use memory::for_lab_machine as memory_mib;

/// In the cache folder, beside what an earlier run left there: packages, and the tree.
const CACHE_MIB: u64 = 1536;

/// Beside that, while a kernel is built: its source, a compiler, and what that makes.
const WORKSHOP_MIB: u64 = 4096;

/// In the folder for temporary files: kernels' initial file systems, and the disks of the lab machine.
const TEMPORARY_MIB: u64 = 1024;

/// Programs and the Debian packages they come with.
const TO_RUN: [(&str, &str); 1] = [("setpriv", "util-linux")];
const TO_BUILD: [(&str, &str); 3] = [
    ("chroot", "coreutils"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
];
const TO_FILL: [(&str, &str); 6] = [
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("apt-config", "apt"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("sha256sum", "coreutils"),
];

/// What it takes to run a lab that is prepared.
pub(crate) fn to_run() -> Result<()> {
    programs(&TO_RUN)?;
    free_space(&env::temp_dir(), TEMPORARY_MIB, "TMPDIR")
}

/// What it takes to prepare one in the folder `cache`.
pub(crate) fn to_fill(cache: &Path) -> Result<()> {
    programs(&TO_FILL)?;
    free_space(cache, CACHE_MIB, "STRAIT_LAB_CACHE")
}

/// What it takes to build a kernel there.
pub(crate) fn to_build(cache: &Path) -> Result<()> {
    programs(&TO_BUILD)?;
    free_space(cache, WORKSHOP_MIB, "STRAIT_LAB_CACHE")
}

fn programs(wanted: &[(&str, &str)]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| env::split_paths(&path).any(|folder| folder.join(name).is_file());
    for (name, package) in wanted {
        ensure!(
            is_there(name),
            "There is no {name} on the PATH: install Debian's package {package}"
        );
    }
    Ok(())
}

/// `variable` names another folder.
fn free_space(folder: &Path, needed_mib: u64, variable: &str) -> Result<()> {
    let space = rustix::fs::statvfs(folder)
        .with_context(|| format!("Cannot see how much space there is in {}", folder.display()))?;
    let free_mib = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
    ensure!(
        free_mib >= needed_mib,
        "The lab needs {needed_mib} MiB in {}, where {free_mib} MiB are free: make room, or set {variable} to \
         another folder",
        folder.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let refusal = programs(&[("sh", "dash"), ("no-such-program", "its-package")]).expect_err("missing");
        assert_eq!(
            refusal.to_string(),
            "There is no no-such-program on the PATH: install Debian's package its-package"
        );
    }

    #[test]
    fn a_full_disk_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().expect("a folder");
        free_space(folder.path(), 0, "STRAIT_LAB_CACHE").expect("no space is enough for nothing");
        let refusal =
            free_space(folder.path(), u64::MAX, "STRAIT_LAB_CACHE").expect_err("no disk is as large");
        assert!(refusal.to_string().contains("set STRAIT_LAB_CACHE"), "{refusal}");
    }
}

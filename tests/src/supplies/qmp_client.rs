//! QEMU's own library for QMP with its qmp-shell, which only the Python Package Index has. It is fetched for the scenario that
//! wants it, and stands in the tree then.

use std::fs;

use anyhow::{Context, Result};

use super::cache::Cache;
use super::progress;
use super::root::Root;
use super::{command, remove};

/// Its release, and the SHA-256 of the one file that is taken.
const REQUIREMENT: &str = "qemu.qmp==0.0.6 \
     --hash=sha256:5d7c5af0e9de427696e3bf72e333965c3a697929f77f6b7ddc30c989fc7b539b\n";

/// Where Python looks for it, when it is told to: in the tree, and so in the lab host.
pub(crate) const FOLDER: &str = "opt/qmp-client";

/// What the stamp says of it.
pub(super) fn recipe() -> &'static str {
    REQUIREMENT
}

/// Downloads, verifies and unpacks it, by Debian's pip and its Python.
pub(super) fn build(cache: &Cache, root: &Root) -> Result<()> {
    let list = cache.path("qmp-client.txt");
    fs::write(&list, REQUIREMENT).with_context(|| format!("Cannot write {}", list.display()))?;
    let folder = root.path(FOLDER);
    remove(&folder)?;
    let mut pip = root.command("usr/bin/python3");
    pip.env("PYTHONHOME", root.path("usr"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args([
            "-m",
            "pip",
            "--quiet",
            "--no-cache-dir",
            "--disable-pip-version-check",
        ])
        .args([
            "install",
            "--no-deps",
            "--no-compile",
            "--only-binary=:all:",
            "--require-hashes",
        ])
        .arg("--target")
        .arg(&folder)
        .arg("--requirement")
        .arg(&list);
    progress::step("Fetching QEMU's client of QMP", || {
        command::run(&mut pip).map(drop)
    })
}

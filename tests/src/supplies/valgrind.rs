//! Valgrind, for the scenario that counts instructions. It is in a folder of its own, as its package has it: its tools are
//! static programs, and what it depends on is for programs that are not.

use std::process::Command;

use anyhow::Result;

use super::apt::{Apt, Release};
use super::cache::Cache;
use super::{command, remove};

const PACKAGE: &str = "valgrind";
const FOLDER: &str = "valgrind";
const TOOLS: &str = "valgrind/usr/libexec/valgrind";

/// What the stamp says of it.
pub(super) fn recipe(release: &Release) -> String {
    format!("{} {PACKAGE}\n", release.codename)
}

/// Downloads, verifies and unpacks it.
pub(super) fn build(cache: &Cache, release: &Release) -> Result<()> {
    let apt = Apt::new(cache, release)?;
    let files = apt.fetch(|apt| apt.alone(PACKAGE))?;
    let folder = cache.path(FOLDER);
    remove(&folder)?;
    Apt::unpack(&files, &folder)
}

/// Callgrind, which writes no profile: its last words have the count. Its launcher would do no more than to choose the
/// tool and set the two variables.
pub(super) fn callgrind(cache: &Cache) -> Command {
    let tools = cache.path(TOOLS);
    let mut callgrind = command::program(tools.join("callgrind-amd64-linux"));
    callgrind
        .env("VALGRIND_LIB", &tools)
        .env("VALGRIND_LAUNCHER", "/nonexistent")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    callgrind
}

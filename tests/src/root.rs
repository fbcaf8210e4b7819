//! The unpacked Debian tree, and how to run its programs without entering it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A root filesystem in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    folder: PathBuf,
}

impl Root {
    /// A tree that lies in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The tree's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path inside the tree.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// A program of the tree, run on the build machine by the tree's own loader and libraries, so
    /// that neither root nor a matching system is needed. `name` is what the program sees as its
    /// own name: kmod acts by it.
    pub(crate) fn command_named(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new(self.path("usr/lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(self.path("usr/lib/x86_64-linux-gnu"))
            .args(["--argv0", name])
            .arg(self.path(program));
        command
    }

    /// A program of the tree under its own name.
    pub(crate) fn command(&self, program: &str) -> Command {
        let name = program.rsplit('/').next().unwrap_or(program);
        self.command_named(name, program)
    }
}

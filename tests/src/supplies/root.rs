//! The unpacked Debian tree, and how to run its programs without entering it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::supplies::command;

/// The dynamic loader.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Where Debian puts libraries.
pub(crate) const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

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
        let mut command = self.loader();
        command.args(["--argv0", name]).arg(self.path(program));
        command
    }

    /// The libraries of the tree that a dynamic program needs, as the tree's loader finds them.
    pub(crate) fn libraries(&self, program: &str) -> Result<Vec<PathBuf>> {
        let list = command::output(self.loader().arg("--list").arg(self.path(program)))
            .with_context(|| format!("Cannot find the libraries of {program}"))?;
        Ok(parse_list(&list))
    }

    /// The tree's loader, which looks for libraries in the tree alone: neither in LD_LIBRARY_PATH nor in the
    /// system's cache of libraries.
    fn loader(&self) -> Command {
        let mut loader = command::program(self.path(LOADER));
        loader
            .args(["--inhibit-cache", "--library-path"])
            .arg(self.path(LIBRARIES));
        loader
    }

    /// A program of the tree under its own name.
    pub(crate) fn command(&self, program: &str) -> Command {
        let name = program.rsplit('/').next().unwrap_or(program);
        self.command_named(name, program)
    }
}

/// `libm.so.6 => /tree/usr/lib/x86_64-linux-gnu/libm.so.6 (0x00007f0eeb530000)`; the kernel's own and the
/// loader have no arrow or lead to the loader, which has a fixed place.
fn parse_list(list: &str) -> Vec<PathBuf> {
    let found = list.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        (!name.contains("ld-linux")).then(|| PathBuf::from(path))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_place_in_the_tree() {
        let list = "\tlinux-vdso.so.1 (0x00007fa824aa8000)\n\
                    \tlibm.so.6 => /a tree/lib/libm.so.6 (0x00007fa824903000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /a tree/lib64/ld-linux-x86-64.so.2 (0x00007fa824aaa000)\n";
        assert_eq!(parse_list(list), [PathBuf::from("/a tree/lib/libm.so.6")]);
    }
}

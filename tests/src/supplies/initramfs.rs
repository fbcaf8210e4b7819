//! Small initial filesystems: busybox, a start script, and modules with the order to insert them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::supplies::modules;
use crate::supplies::root::Root;

const FOLDERS: [&str; 9] = ["bin", "dev", "lab", "lib", "modules", "new", "proc", "run", "sys"];

/// The dynamic loader, where the programs of the tree name it.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// What an initramfs is made of besides busybox.
pub(crate) struct Contents<'a> {
    /// Modules that `/modules/order` names in the order to insert them, with what they need.
    pub(crate) drivers: &'a [&'a str],
    /// Modules to choose from, each with an order of its own: `/modules/order.NAME`.
    pub(crate) choices: &'a [&'a str],
    /// Dynamic programs of the tree; the libraries they need come with them.
    pub(crate) programs: &'a [&'a str],
    /// Other files: where they go, and where they are.
    pub(crate) files: &'a [(String, PathBuf)],
    /// `/init`.
    pub(crate) script: &'a str,
}

/// Writes an initramfs. It is left uncompressed: loading a few more megabytes is cheaper than unpacking
/// them on an emulated CPU.
pub(crate) fn write(root: &Root, version: &str, contents: &Contents<'_>, to: &Path) -> Result<()> {
    let archive =
        build(root, version, contents).with_context(|| format!("Cannot build an initramfs for {version}"))?;
    fs::write(to, archive).with_context(|| format!("Cannot write {}", to.display()))
}

fn build(root: &Root, version: &str, contents: &Contents<'_>) -> Result<Vec<u8>> {
    let busybox = fs::read(root.path("usr/bin/busybox")).context("Cannot read busybox")?;
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add_folder(folder)?;
    }
    archive.add_file("bin/busybox", 0o755, &busybox)?;
    archive.add("bin/sh", 0o777, ModeFileType::Symlink, b"busybox")?;
    archive.add_file("init", 0o755, contents.script.as_bytes())?;
    let mut known = BTreeSet::new();
    archive.add_modules(root, version, contents.drivers, "order", &mut known)?;
    for choice in contents.choices {
        archive.add_modules(root, version, &[choice], &format!("order.{choice}"), &mut known)?;
    }
    for program in contents.programs {
        archive.add_program(root, program)?;
    }
    for (name, from) in contents.files {
        archive.add_copy(name, 0o755, from)?;
    }
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Modules with what they need, as far as they are not `known` yet, and the order of all of them.
    fn add_modules(
        &mut self,
        root: &Root,
        version: &str,
        drivers: &[&str],
        order: &str,
        known: &mut BTreeSet<String>,
    ) -> Result<()> {
        let mut names = String::new();
        for (name, content) in modules::plain(root, version, drivers)? {
            names += &format!("{name}\n");
            if known.insert(name.clone()) {
                self.add_file(&format!("modules/{name}.ko"), 0o644, &content)?;
            }
        }
        self.add_file(&format!("modules/{order}"), 0o644, names.as_bytes())
    }

    fn add_program(&mut self, root: &Root, program: &str) -> Result<()> {
        let name = program.rsplit('/').next().unwrap_or(program);
        self.add_copy(&format!("bin/{name}"), 0o755, &root.path(program))?;
        self.add_copy(LOADER, 0o755, &root.path("usr").join(LOADER))?;
        for library in root.libraries(program)? {
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            self.add_copy(&format!("lib/{name}"), 0o644, &library)?;
        }
        Ok(())
    }

    fn add_copy(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("Cannot read {}", from.display()))?;
        self.add_file(name, mode, &content)
    }

    /// A file, and the folders above it that are not there yet.
    fn add_file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        for (end, _) in name.match_indices('/') {
            self.add_folder(&name[..end])?;
        }
        self.add(name, mode, ModeFileType::Regular, content)
    }

    fn add_folder(&mut self, name: &str) -> Result<()> {
        match self.folders.insert(name.to_owned()) {
            true => self.add(name, 0o755, ModeFileType::Directory, &[]),
            false => Ok(()),
        }
    }

    fn add(&mut self, name: &str, mode: u32, kind: ModeFileType, content: &[u8]) -> Result<()> {
        use std::io::Write;
        self.entries += 1;
        let size = u32::try_from(content.len()).context("The file is too large for an initramfs")?;
        let entry = Builder::new(name)
            .ino(self.entries)
            .mode(mode)
            .set_mode_file_type(kind)
            .nlink(1);
        let mut writer = entry.write(&mut self.bytes, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }
}

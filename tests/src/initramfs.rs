//! Small initial filesystems: busybox, a start script, and modules with the order to insert them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::modules;
use crate::root::Root;

const FOLDERS: [&str; 9] = ["bin", "dev", "lab", "lib", "modules", "new", "proc", "run", "sys"];

/// Writes an initramfs whose `/init` is `script`. It is left uncompressed: loading a few more
/// megabytes is cheaper than unpacking them on an emulated CPU.
pub(crate) fn write(root: &Root, version: &str, drivers: &[&str], script: &str, to: &Path) -> Result<()> {
    let archive = build(root, version, drivers, script)
        .with_context(|| format!("Cannot build an initramfs for {version}"))?;
    fs::write(to, archive).with_context(|| format!("Cannot write {}", to.display()))
}

fn build(root: &Root, version: &str, drivers: &[&str], script: &str) -> Result<Vec<u8>> {
    let busybox = fs::read(root.path("usr/bin/busybox")).context("Cannot read busybox")?;
    let modules = modules::plain(root, version, drivers)?;
    let order: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();

    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, 0o755, ModeFileType::Directory, &[])?;
    }
    archive.add("bin/busybox", 0o755, ModeFileType::Regular, &busybox)?;
    archive.add("bin/sh", 0o777, ModeFileType::Symlink, b"busybox")?;
    archive.add("init", 0o755, ModeFileType::Regular, script.as_bytes())?;
    for (name, content) in &modules {
        archive.add(
            &format!("modules/{name}.ko"),
            0o644,
            ModeFileType::Regular,
            content,
        )?;
    }
    archive.add("modules/order", 0o644, ModeFileType::Regular, order.as_bytes())?;
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
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

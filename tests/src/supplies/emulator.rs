//! QEMU of the lab's tree, which is the lab machine. One that the build machine has is left alone, whatever its
//! version: the lab is the same everywhere.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::supplies::command;
use crate::supplies::guests::QEMU;
use crate::supplies::root::{LIBRARIES, Root};

/// A QEMU that runs and has what the lab needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Emulator {
    /// Its CPUs have x2APIC without KVM, since 9.0.
    pub(crate) has_x2apic: bool,
}

impl Emulator {
    /// Starts it, twice, to ask what it is.
    pub(crate) fn of(root: &Root) -> Result<Self> {
        enclose(root)?;
        let ask = |option: &[&str]| command::output(root.command(QEMU).args(option));
        let answers = ask(&["-device", "help"]).and_then(|help| Ok((help, ask(&["-version"])?)));
        let (help, version) = answers.context(
            "The lab's own QEMU does not run; if `cargo lab clean` does not help, please report it",
        )?;
        Self::parse(&help, &version)
    }

    fn parse(help: &str, version: &str) -> Result<Self> {
        let number = number(version);
        if !help.contains("name \"igb\"") {
            bail!(
                "QEMU {number} of the configured Debian sources has no igb device, the lab needs 8.0 or newer"
            );
        }
        let major = number
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        Ok(Self {
            has_x2apic: major.is_some_and(|major| major >= 9),
        })
    }
}

/// Keeps it from the build machine's modules, firmware, keymaps and settings: it looks for all of them in the
/// folder of this name beside the program that runs, here the loader, and in no other if there is one (QEMU,
/// util/cutils.c, `get_relocated_path`). Modules in QEMU_MODULE_DIR would only be looked for first.
fn enclose(root: &Root) -> Result<()> {
    let bundle = root.path(LIBRARIES).join("qemu-bundle");
    let up: PathBuf = LIBRARIES.split('/').map(|_| "..").collect();
    match symlink(up, &bundle) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("Cannot create {}", bundle.display()))
        }
        _ => Ok(()),
    }
}

/// The first line of `-version` is `QEMU emulator version 10.0.2 (Debian ...)`.
fn number(version: &str) -> &str {
    version.split_whitespace().nth(3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const IGB: &str = "name \"igb\", bus PCI, desc \"Intel 82576 Gigabit Ethernet Controller\"\n";

    #[test]
    fn x2apic_came_with_9_0() {
        let has_x2apic = |version| Emulator::parse(IGB, version).expect("a fit QEMU").has_x2apic;
        assert!(has_x2apic(
            "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0)"
        ));
        assert!(!has_x2apic("QEMU emulator version 8.2.2"));
    }

    #[test]
    fn a_qemu_without_igb_is_refused_by_its_version() {
        let refusal = Emulator::parse("name \"e1000\"\n", "QEMU emulator version 7.2.17").expect_err("unfit");
        assert!(refusal.to_string().contains("QEMU 7.2.17"), "{refusal}");
    }

    #[test]
    fn what_qemu_asks_of_the_system_is_in_the_tree() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::new(folder.path().to_owned());
        fs::create_dir_all(root.path(LIBRARIES)).expect("a library folder");
        fs::create_dir_all(root.path("usr/share/qemu")).expect("a firmware folder");
        enclose(&root).expect("a bundle");
        enclose(&root).expect("the same bundle");
        let firmware = root.path(LIBRARIES).join("qemu-bundle/usr/share/qemu");
        assert_eq!(
            firmware.canonicalize().expect("a folder"),
            root.path("usr/share/qemu").canonicalize().expect("a folder")
        );
    }
}

//! The folder that the lab host sees as /lab: the programs under test, scripts, guest kernels and
//! initial filesystems.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::kind::Kind;
use super::logs::workspace;
use super::{devices, housing, zoo};
use crate::supplies::guests::{self, Files, Initramfs};
use crate::supplies::initramfs::{self, Contents};
use crate::supplies::kernel::Kernel;
use crate::supplies::{HOST_SERIES, OLD_SERIES, Supplies, debug_kernel, further, progress};

const HOST_INIT: &str = include_str!("../../../resources/lab/host-init.sh");
const HOST_START: &str = include_str!("../../../resources/lab/host-start.sh");
const GUEST_INIT: &str = include_str!("../../../resources/lab/guest-init.sh");

/// The recipe for users, `nested/` in the share.
const RECIPE: [(&str, &str); 3] = [
    (
        "nested/build.sh",
        include_str!("../../../resources/nested/build.sh"),
    ),
    (
        "nested/l1-init.sh",
        include_str!("../../../resources/nested/l1-init.sh"),
    ),
    (
        "nested/l2-init.sh",
        include_str!("../../../resources/nested/l2-init.sh"),
    ),
];

/// Temporary folders carry their owner's process id after this.
const PREFIX: &str = "strait-lab-";

/// What the lab host's initramfs needs to reach the shared folders and the harness.
const HOST_DRIVERS: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"];

/// A temporary folder, removed with this value.
pub(crate) struct Share {
    folder: TempDir,
}

impl Share {
    /// Fills the folder for a machine of this kind. `strait` is the binary under test, absent when QEMU stands in for
    /// it.
    pub(crate) fn new(supplies: &Supplies, strait: Option<&Path>, kind: Kind) -> Result<Self> {
        remove_abandoned();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .context("Cannot create a temporary folder")?;
        let share = Self { folder };
        for name in ["bin", "guest", "nested", "root"] {
            let path = share.path(name);
            fs::create_dir(&path).with_context(|| format!("Cannot create {}", path.display()))?;
        }
        let own = std::env::current_exe().context("Cannot find this program's own file")?;
        share.copy(&own, "bin/lab")?;
        if let Some(strait) = strait {
            share.copy(strait, "bin/strait")?;
        }
        share.write("host-start.sh", HOST_START)?;
        for (name, text) in RECIPE {
            share.write(name, text)?;
        }
        share.add_initramfs(supplies)?;
        share.add_guests(supplies, kind)?;
        Ok(share)
    }

    /// A path in the folder, as the build machine sees it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a small file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path(name), text).with_context(|| format!("Cannot write {name} for the lab host"))
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        fs::copy(from, self.path(to))
            .map(drop)
            .with_context(|| format!("Cannot copy {} for the lab host", from.display()))
    }

    fn add_initramfs(&self, supplies: &Supplies) -> Result<()> {
        let contents = Contents {
            drivers: &HOST_DRIVERS,
            choices: &[],
            programs: &[],
            files: &[],
            script: HOST_INIT,
        };
        let to = self.path("host.cpio");
        initramfs::write(&supplies.root, &supplies.host_kernel()?.version, &contents, &to)
    }

    /// `guest/vmlinuz-6.12`, `guest/vmlinux-6.12`, `guest/initramfs-6.12` and so on. The kernels are
    /// links that lead, in the lab host, into its root filesystem.
    fn add_guests(&self, supplies: &Supplies, kind: Kind) -> Result<()> {
        let usual = [HOST_SERIES, OLD_SERIES].map(|series| (series, guests::NIC_DRIVERS));
        let debug = (debug_kernel::SERIES, debug_kernel::DRIVERS);
        let further = further::ALL
            .iter()
            .map(|further| (further.series, further.drivers));
        for (series, drivers) in usual.into_iter().chain(further).chain([debug]) {
            let Some(kernel) = supplies.kernel(series) else {
                continue;
            };
            for image in ["vmlinuz", "vmlinux"] {
                let link = self.path(&format!("guest/{image}-{series}"));
                symlink(format!("/boot/{image}-{}", kernel.version), &link)
                    .with_context(|| format!("Cannot create {}", link.display()))?;
            }
            let plain = Initramfs {
                drivers,
                ..guests::ALL[0]
            };
            self.add_guest(
                supplies,
                kernel,
                &plain,
                &format!("guest/{}-{series}", plain.name),
            )?;
        }
        let kernel = supplies.host_kernel()?;
        let is_wanted = |guest: &&Initramfs| !housing::lodgers(kind).is_empty() || guest.name != guests::ZOO;
        for guest in guests::ALL[1..].iter().filter(is_wanted) {
            self.add_guest(
                supplies,
                kernel,
                guest,
                &format!("guest/{}-{HOST_SERIES}", guest.name),
            )?;
        }
        Ok(())
    }

    fn add_guest(&self, supplies: &Supplies, kernel: &Kernel, guest: &Initramfs, to: &str) -> Result<()> {
        let of_devices = || {
            devices::ALL
                .iter()
                .flat_map(|device| device.drivers.iter().copied())
        };
        let choices: Vec<&str> = match (guest.name, guest.choices) {
            (guests::ZOO, _) => zoo::drivers().collect(),
            (_, ["*", others @ ..]) => of_devices().chain(others.iter().copied()).collect(),
            (_, choices) => choices.to_vec(),
        };
        let files: Vec<_> = guest
            .files
            .iter()
            .flat_map(|files| self.files(supplies, kernel, *files))
            .collect();
        let contents = Contents {
            drivers: guest.drivers,
            choices: &choices,
            programs: guest.programs,
            files: &files,
            script: GUEST_INIT,
        };
        initramfs::write(&supplies.root, &kernel.version, &contents, &self.path(to))
    }

    /// Where files go in a guest, and where they are.
    fn files(&self, supplies: &Supplies, kernel: &Kernel, files: Files) -> Vec<(String, PathBuf)> {
        let own = |path: &str| (path.to_owned(), self.path(path));
        let of_tree = |to: &str, path: &str| (to.to_owned(), supplies.root.path(path));
        match files {
            Files::Lab => vec![own("bin/lab")],
            Files::Strait => vec![own("bin/strait")]
                .into_iter()
                .filter(|(_, path)| path.exists())
                .collect(),
            Files::Guest(name) => {
                let (image, initrd) = (format!("vmlinuz-{HOST_SERIES}"), format!("{name}-{HOST_SERIES}"));
                vec![
                    (format!("lab/guest/{image}"), kernel.bzimage.clone()),
                    (
                        format!("lab/guest/{initrd}"),
                        self.path(&format!("guest/{initrd}")),
                    ),
                ]
            }
            Files::Firmware => guests::FIRMWARE.iter().map(|path| of_tree(path, path)).collect(),
            Files::ThreadLibrary => {
                let library = "usr/lib/x86_64-linux-gnu/libgcc_s.so.1";
                vec![of_tree("lib/libgcc_s.so.1", library)]
            }
        }
    }
}

/// Folders of labs that were killed before they could tidy up.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let gone =
            owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists());
        if gone {
            // Another user's is not ours to remove, nor to complain about.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Builds the binary under test.
pub(crate) fn build_strait() -> Result<PathBuf> {
    build_program("strait")
}

/// Builds a package's program of the same name as a user would, and says where cargo put it.
pub(crate) fn build_program(name: &str) -> Result<PathBuf> {
    progress::step(&format!("Building {name} (release)"), || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--release", "--package", name, "--bin", name])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(workspace())
            .output()
            .context("Cannot start cargo")?;
        if !output.status.success() {
            eprintln!("\n{}", String::from_utf8_lossy(&output.stderr));
            bail!("{name} does not build");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        executable_in(&messages).with_context(|| format!("cargo did not say where it put {name}"))
    })
}

fn executable_in(messages: &str) -> Option<PathBuf> {
    let mut paths = messages.lines().rev().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    paths.next()
}

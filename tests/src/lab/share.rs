//! The folder that the lab host sees as /lab: the programs under test, scripts, guest kernels and
//! initial filesystems.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::logs::workspace;
use crate::supplies::initramfs::{self, Contents};
use crate::supplies::progress;
use crate::supplies::{
    DEVICE_DRIVERS, DEVICE_PROGRAMS, GUEST_DRIVERS, HOST_SERIES, INNER_DRIVERS, KEXEC, NESTED_DRIVERS,
    OLD_SERIES, QEMU, QEMU_FIRMWARE, STREAM_PROGRAM, Supplies, VFIO_DRIVERS,
};

const HOST_INIT: &str = include_str!("../../../resources/lab/host-init.sh");
const HOST_START: &str = include_str!("../../../resources/lab/host-start.sh");
const GUEST_INIT: &str = include_str!("../../../resources/lab/guest-init.sh");
const DEVICE_STEPS: &str = include_str!("../../../resources/lab/devices.sh");
const NESTED_STEPS: &str = include_str!("../../../resources/lab/nested.sh");
const PROBE_STEPS: &str = include_str!("../../../resources/lab/probe.sh");
const KEXEC_STEPS: &str = include_str!("../../../resources/lab/kexec.sh");
const BENCH_STEPS: &str = include_str!("../../../resources/lab/bench.sh");

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
    /// Fills the folder. `strait` is the binary under test, absent when QEMU stands in for it.
    pub(crate) fn new(supplies: &Supplies, strait: Option<&Path>) -> Result<Self> {
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
        share.add_guests(supplies)?;
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
        let version = &supplies.host_kernel()?.version;
        let to = self.path("host.cpio");
        let contents = Contents::plain(&HOST_DRIVERS, HOST_INIT);
        initramfs::write(&supplies.root, version, &contents, &to)
    }

    /// `guest/vmlinuz-6.12`, `guest/vmlinux-6.12`, `guest/initramfs-6.12` and so on. The kernels are
    /// links that lead, in the lab host, into its root filesystem.
    fn add_guests(&self, supplies: &Supplies) -> Result<()> {
        for series in [HOST_SERIES, OLD_SERIES] {
            let Some(kernel) = supplies.kernel(series) else {
                continue;
            };
            for image in ["vmlinuz", "vmlinux"] {
                let link = self.path(&format!("guest/{image}-{series}"));
                symlink(format!("/boot/{image}-{}", kernel.version), &link)
                    .with_context(|| format!("Cannot create {}", link.display()))?;
            }
            let to = self.path(&format!("guest/initramfs-{series}"));
            let contents = Contents::plain(&GUEST_DRIVERS, GUEST_INIT);
            initramfs::write(&supplies.root, &kernel.version, &contents, &to)?;
        }
        self.add_devices_guest(supplies)?;
        self.add_nested_guests(supplies)?;
        self.add_probe_guest(supplies)?;
        self.add_kexec_guest(supplies)?;
        self.add_bench_guest(supplies)
    }

    /// `guest/devices-6.12`: an initial file system with more drivers, of which the guest's command line
    /// names those to load.
    fn add_devices_guest(&self, supplies: &Supplies) -> Result<()> {
        let contents = Contents {
            choices: &DEVICE_DRIVERS,
            programs: &DEVICE_PROGRAMS,
            steps: Some(DEVICE_STEPS),
            ..Contents::plain(&[], GUEST_INIT)
        };
        let to = self.path(&format!("guest/devices-{HOST_SERIES}"));
        initramfs::write(&supplies.root, &supplies.host_kernel()?.version, &contents, &to)
    }

    /// `guest/nested-6.12`: a guest that is a hypervisor itself, with a kernel, an initial file system and
    /// a VMM for a guest of its own: Strait, where it is under test. `guest/nested-qemu-6.12` has QEMU too.
    fn add_nested_guests(&self, supplies: &Supplies) -> Result<()> {
        let kernel = supplies.host_kernel()?;
        let inner = self.path(&format!("guest/inner-{HOST_SERIES}"));
        let contents = Contents {
            choices: &INNER_DRIVERS,
            ..Contents::plain(&[], GUEST_INIT)
        };
        initramfs::write(&supplies.root, &kernel.version, &contents, &inner)?;

        let mut files = vec![
            ("nested/vmlinuz", kernel.bzimage.clone()),
            ("nested/initramfs", inner),
        ];
        let strait = self.path("bin/strait");
        if strait.exists() {
            files.push(("bin/strait", strait));
        }
        let contents = Contents {
            choices: &NESTED_DRIVERS,
            files: &files,
            steps: Some(NESTED_STEPS),
            ..Contents::plain(&[], GUEST_INIT)
        };
        let to = self.path(&format!("guest/nested-{HOST_SERIES}"));
        initramfs::write(&supplies.root, &kernel.version, &contents, &to)?;

        let firmware = QEMU_FIRMWARE.map(|path| (path, supplies.root.path(path)));
        let files = [files.as_slice(), &firmware].concat();
        let contents = Contents {
            programs: &[QEMU],
            files: &files,
            ..contents
        };
        let to = self.path(&format!("guest/nested-qemu-{HOST_SERIES}"));
        initramfs::write(&supplies.root, &kernel.version, &contents, &to)
    }

    /// `guest/probe-6.12`: a guest that runs this program on a device it gives to vfio-pci.
    fn add_probe_guest(&self, supplies: &Supplies) -> Result<()> {
        let contents = Contents {
            files: &[("bin/lab", self.path("bin/lab"))],
            steps: Some(PROBE_STEPS),
            ..Contents::plain(&VFIO_DRIVERS, GUEST_INIT)
        };
        let to = self.path(&format!("guest/probe-{HOST_SERIES}"));
        initramfs::write(&supplies.root, &supplies.host_kernel()?.version, &contents, &to)
    }

    /// `guest/kexec-6.12`: a guest that starts another kernel in its own place, with the plain guest's initial
    /// file system.
    fn add_kexec_guest(&self, supplies: &Supplies) -> Result<()> {
        let kernel = supplies.host_kernel()?;
        let contents = Contents {
            programs: &[KEXEC],
            files: &[
                ("next/vmlinuz", kernel.bzimage.clone()),
                (
                    "next/initramfs",
                    self.path(&format!("guest/initramfs-{HOST_SERIES}")),
                ),
            ],
            steps: Some(KEXEC_STEPS),
            ..Contents::plain(&GUEST_DRIVERS, GUEST_INIT)
        };
        let to = self.path(&format!("guest/kexec-{HOST_SERIES}"));
        initramfs::write(&supplies.root, &kernel.version, &contents, &to)
    }

    /// `guest/bench-6.12`: a guest that is measured.
    fn add_bench_guest(&self, supplies: &Supplies) -> Result<()> {
        // Loaded when a thread is cancelled, so that the program does not name it.
        let library = supplies.root.path("usr/lib/x86_64-linux-gnu/libgcc_s.so.1");
        let contents = Contents {
            programs: &[STREAM_PROGRAM],
            files: &[("lib/libgcc_s.so.1", library)],
            steps: Some(BENCH_STEPS),
            ..Contents::plain(&GUEST_DRIVERS, GUEST_INIT)
        };
        let to = self.path(&format!("guest/bench-{HOST_SERIES}"));
        initramfs::write(&supplies.root, &supplies.host_kernel()?.version, &contents, &to)
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

/// Builds the binary under test as a user would, and says where cargo put it.
pub(crate) fn build_strait() -> Result<PathBuf> {
    progress::step("Building strait (release)", || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--release", "--package", "strait", "--bin", "strait"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(workspace())
            .output()
            .context("Cannot start cargo")?;
        if !output.status.success() {
            eprintln!("\n{}", String::from_utf8_lossy(&output.stderr));
            bail!("strait does not build");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        executable_in(&messages).context("cargo did not say where it put strait")
    })
}

fn executable_in(messages: &str) -> Option<PathBuf> {
    let mut paths = messages.lines().rev().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    paths.next()
}

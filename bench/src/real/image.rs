//! The guest that is started: the host's own kernel, and an initial file system made for the device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::device::Device;

const BUILD: &str = include_str!("../../../resources/bench/build.sh");
const INIT: &str = include_str!("../../../resources/bench/guest-init.sh");
const DHCP: &str = include_str!("../../../resources/bench/guest-dhcp.sh");

/// Kernel and initial file system; what was made for them goes with this value.
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    _made: Option<TempDir>,
}

impl Image {
    /// Kernel and initial file system that the user gives; they are not looked at here.
    pub(super) fn given(kernel: &Path, initrd: &Path) -> Self {
        Self {
            kernel: kernel.to_owned(),
            initrd: initrd.to_owned(),
            _made: None,
        }
    }

    /// Whether both can be read.
    pub(super) fn check(&self) -> Result<()> {
        for (option, path) in [("--kernel", &self.kernel), ("--initrd", &self.initrd)] {
            fs::File::open(path).with_context(|| format!("{option} {} cannot be read", path.display()))?;
        }
        Ok(())
    }

    /// Made of this host, with a program of it that the guest works with.
    pub(super) fn of_this_host(device: &Device, program: Option<&str>) -> Result<Self> {
        let release =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot tell which kernel runs")?;
        let kernel = PathBuf::from(format!("/boot/vmlinuz-{}", release.trim()));
        ensure!(
            kernel.exists(),
            "{}: there is no such file; name a kernel by --kernel, with its --initrd",
            kernel.display()
        );
        let folder = tempfile::tempdir().context("cannot make a folder for the guest")?;
        let place = |name: &str| folder.path().join(name);
        for (name, text) in [("init", INIT), ("dhcp", DHCP)] {
            fs::write(place(name), text).context("cannot write the guest's first program")?;
        }
        let initrd = place("initrd");
        let output = Command::new("/bin/sh")
            .args(["-c", BUILD, "build", &device.address])
            .args([folder.path(), &initrd])
            .args(program)
            .output()
            .context("cannot start /bin/sh")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        ensure!(
            output.status.success(),
            "cannot make the guest's initial file system: {last}"
        );
        Ok(Self {
            kernel,
            initrd,
            _made: Some(folder),
        })
    }
}

//! The device that is handed to guests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A PCI device of this host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Device {
    /// Domain, bus, device and function, as in `0000:01:00.0`.
    pub(super) address: String,
    /// Vendor and device, `0x8086:0x10c9`.
    pub(super) ids: String,
    /// Base class, subclass and interface (PCI 3.0 §6.2.1), `0x020000`.
    pub(super) class: u32,
}

/// An Ethernet controller.
const NIC: u32 = 0x02_0000;
/// An NVMe drive.
const NVME: u32 = 0x01_0802;

impl Device {
    pub(super) fn is_nic(&self) -> bool {
        self.class == NIC
    }

    pub(super) fn is_nvme(&self) -> bool {
        self.class == NVME
    }

    /// Finds a device by its address, with or without the domain, or by its network interface or disk.
    pub(super) fn find(name: &str, sysfs: &Path) -> Result<Self> {
        let by_address =
            [name.to_owned(), format!("0000:{name}")].map(|name| sysfs.join("bus/pci/devices").join(name));
        let by_name = ["net", "block"].map(|class| sysfs.join("class").join(class).join(name).join("device"));
        let mut places = by_address.into_iter().chain(by_name);
        let found = places.find_map(|place| fs::canonicalize(place).ok());
        // What an interface belongs to may stand below the function, as virtio's devices do.
        let is_function = |place: &&Path| {
            let name = place.file_name().unwrap_or_default();
            sysfs.join("bus/pci/devices").join(name).exists()
        };
        let place = found
            .as_deref()
            .and_then(|place| place.ancestors().find(is_function));
        let Some(place) = place else {
            bail!(
                "--device {name}: this host has no PCI device of this address, network interface or disk; `strait host list` shows them"
            );
        };
        let address = place
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let id = |file: &str| {
            let text = fs::read_to_string(place.join(file));
            let text = text.with_context(|| format!("--device {name}: its {file} cannot be read"))?;
            Ok::<_, anyhow::Error>(text.trim().to_owned())
        };
        let ids = format!("{}:{}", id("vendor")?, id("device")?);
        let class = id("class")?;
        let class = u32::from_str_radix(class.trim_start_matches("0x"), 16);
        let class = class.with_context(|| format!("--device {name}: its class is no number"))?;
        Ok(Self { address, ids, class })
    }

    /// Gives it to vfio-pci, by the rules of `strait host bind`: a device in use is refused.
    pub(super) fn take(&self, strait: &Path) -> Result<Taken> {
        host(strait, "bind", &self.address)?;
        Ok(Taken {
            strait: strait.to_owned(),
            address: self.address.clone(),
        })
    }
}

/// A device on vfio-pci, given back with this value.
pub(super) struct Taken {
    strait: PathBuf,
    address: String,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Err(error) = host(&self.strait, "restore", &self.address) {
            eprintln!("strait-bench: {error:#}");
        }
    }
}

/// A command of `strait host`, which is not ended by what ends this program.
fn host(strait: &Path, command: &str, address: &str) -> Result<()> {
    use std::os::unix::process::CommandExt;

    let mut program = Command::new(strait);
    let output = program.args(["host", command, address]).process_group(0).output();
    let output = output.with_context(|| format!("cannot start {}", strait.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`strait host {command} {address}` failed: {}",
            said.trim().trim_start_matches("strait: ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_device_is_found_by_address_and_by_interface() {
        let sysfs = tempfile::tempdir().expect("a folder");
        let device = sysfs.path().join("devices/0000:01:00.0");
        let all = sysfs.path().join("bus/pci/devices");
        let interface = sysfs.path().join("class/net/enp1s0");
        for folder in [&device, &all, &interface] {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(device.join("vendor"), "0x8086\n").expect("a file");
        fs::write(device.join("device"), "0x10c9\n").expect("a file");
        fs::write(device.join("class"), "0x020000\n").expect("a file");
        symlink(&device, all.join("0000:01:00.0")).expect("a link");
        let part = device.join("virtio2");
        fs::create_dir(&part).expect("a folder");
        symlink(&part, interface.join("device")).expect("a link");
        let found =
            ["0000:01:00.0", "01:00.0", "enp1s0"].map(|name| Device::find(name, sysfs.path()).expect(name));
        assert!(
            found
                .iter()
                .all(|one| one.address == "0000:01:00.0" && one.ids == "0x8086:0x10c9" && one.is_nic())
        );
        let error = Device::find("02:00.0", sysfs.path())
            .expect_err("there is none")
            .to_string();
        assert!(error.contains("`strait host list`"), "{error}");
    }
}

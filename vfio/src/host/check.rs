//! The check before a start: everything that would make VFIO say no, found out beforehand and told with what
//! to do about it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::HostBdf;
use super::group::{Group, is_vfio_driver};
use super::process;
use super::sysfs::{PciDevice, Root};

/// Why devices cannot be passed through, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// sysfs does not answer.
    #[error("cannot read what sysfs says of {bdf}")]
    Sysfs {
        /// Which function.
        bdf: HostBdf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host has no such function.
    #[error("there is no PCI device {0}; `lspci -D` lists those there are")]
    NoSuchDevice(HostBdf),
    /// It is named twice.
    #[error("{0} is given twice")]
    Twice(HostBdf),
    /// A bridge stays with the host.
    #[error("{0} is a bridge and stays with the host; pass the devices behind it")]
    Bridge(HostBdf),
    /// There is no IOMMU.
    #[error(
        "{0} is in no IOMMU group, so the host's IOMMU is off; turn it on in the firmware (VT-d, AMD-Vi or \
         IOMMU) and boot the host with intel_iommu=on (Intel; AMD needs no option unless amd_iommu=off is \
         given)"
    )]
    NoIommu(HostBdf),
    /// Another driver has it.
    #[error(
        "{bdf} is bound to {driver} instead of vfio-pci; give it up with: {commands}", driver = .driver
    )]
    NotBound {
        /// Which function.
        bdf: HostBdf,
        /// Who has it.
        driver: String,
        /// What binds it to vfio-pci.
        commands: String,
    },
    /// Others in the group belong to the host.
    #[error(
        "{bdf} shares IOMMU group {group} with devices that the host uses: {culprits}; bind them to vfio-pci \
         too, or unbind them"
    )]
    NotViable {
        /// Which function.
        bdf: HostBdf,
        /// Its group.
        group: u32,
        /// The members and their drivers.
        culprits: String,
    },
    /// VFIO is not there.
    #[error("the host has no {0}; load VFIO with: modprobe -a vfio-pci vfio_iommu_type1")]
    NoVfio(&'static str),
    /// Another process has the group.
    #[error("{bdf} is in use: {path} is held by {holder}")]
    InUse {
        /// Which function.
        bdf: HostBdf,
        /// The group's file.
        path: String,
        /// Who.
        holder: String,
    },
    /// The group's file is not ours to open.
    #[error(
        "no permission to open {path} for {bdf}; run as root, or give yourself the file: \
         sudo chown $USER {path}"
    )]
    Permission {
        /// Which function.
        bdf: HostBdf,
        /// The file.
        path: String,
    },
    /// The group's file does not open.
    #[error("cannot open {path} for {bdf}")]
    Open {
        /// Which function.
        bdf: HostBdf,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The guest's memory cannot be locked.
    #[error(
        "the guest's memory must be locked for DMA: {needed} MiB, but the limit is {limit} MiB; raise it with \
         `ulimit -l {needed_kib}`, LimitMEMLOCK= of the service or /etc/security/limits.conf, or run as root"
    )]
    Memlock {
        /// Needed, in MiB.
        needed: u64,
        /// The same in the unit of ulimit.
        needed_kib: u64,
        /// Allowed, in MiB.
        limit: u64,
    },
}

/// Checks that `devices` can be passed to a guest of `memory_bytes`, and returns their groups. Changes
/// nothing: a group's file is opened and closed again.
///
/// # Errors
/// The first thing that is in the way.
pub fn check(root: &Root, devices: &[HostBdf], memory_bytes: u64) -> Result<Vec<Group>, CheckError> {
    let mut groups: Vec<Group> = Vec::new();
    for (n, &bdf) in devices.iter().enumerate() {
        if devices[..n].contains(&bdf) {
            return Err(CheckError::Twice(bdf));
        }
        let device = device(root, bdf)?;
        let number = check_device(&device)?;
        if groups.iter().any(|group| group.number == number) {
            continue;
        }
        let group = Group::read(root, number).map_err(|source| CheckError::Sysfs { bdf, source })?;
        check_group(&group, bdf)?;
        check_file(root, &group, bdf)?;
        groups.push(group);
    }
    if !devices.is_empty() {
        check_memlock(root, memory_bytes)?;
    }
    Ok(groups)
}

fn device(root: &Root, bdf: HostBdf) -> Result<PciDevice, CheckError> {
    let device = root
        .device(bdf)
        .map_err(|source| CheckError::Sysfs { bdf, source })?;
    device.ok_or(CheckError::NoSuchDevice(bdf))
}

/// What the function itself must be; returns its group.
fn check_device(device: &PciDevice) -> Result<u32, CheckError> {
    let bdf = device.bdf;
    if device.is_bridge() {
        return Err(CheckError::Bridge(bdf));
    }
    let group = device.group.ok_or(CheckError::NoIommu(bdf))?;
    if !device.driver.as_deref().is_some_and(is_vfio_driver) {
        let driver = device.driver_name().to_owned();
        return Err(CheckError::NotBound {
            bdf,
            driver,
            commands: bind_commands(device),
        });
    }
    Ok(group)
}

/// One line for a root shell that binds the function to vfio-pci.
fn bind_commands(device: &PciDevice) -> String {
    let bdf = device.bdf;
    let folder = format!("/sys/bus/pci/devices/{bdf}");
    let unbind = match device.driver {
        Some(_) => format!("echo {bdf} > {folder}/driver/unbind; "),
        None => String::new(),
    };
    format!(
        "modprobe vfio-pci; echo vfio-pci > {folder}/driver_override; {unbind}echo {bdf} > \
         /sys/bus/pci/drivers_probe"
    )
}

fn check_group(group: &Group, bdf: HostBdf) -> Result<(), CheckError> {
    let culprits: Vec<String> = group
        .culprits()
        .map(|member| format!("{} ({})", member.bdf, member.driver_name()))
        .collect();
    if culprits.is_empty() {
        return Ok(());
    }
    Err(CheckError::NotViable {
        bdf,
        group: group.number,
        culprits: culprits.join(", "),
    })
}

/// Opens the group as VFIO will.
fn check_file(root: &Root, group: &Group, bdf: HostBdf) -> Result<(), CheckError> {
    if !root.path("dev/vfio/vfio").exists() {
        return Err(CheckError::NoVfio("/dev/vfio/vfio"));
    }
    let absolute = PathBuf::from(format!("/dev/vfio/{}", group.number));
    let path = absolute.display().to_string();
    let opened = File::options()
        .read(true)
        .write(true)
        .open(root.path(path.trim_start_matches('/')));
    opened.map(drop).map_err(|source| match source.kind() {
        io::ErrorKind::ResourceBusy => CheckError::InUse {
            bdf,
            path,
            holder: holder(root, &absolute),
        },
        io::ErrorKind::PermissionDenied => CheckError::Permission { bdf, path },
        _ => CheckError::Open { bdf, path, source },
    })
}

fn holder(root: &Root, path: &Path) -> String {
    match process::holder(root, path) {
        Some(process::Holder { pid, name }) => format!("process {pid} ({name})"),
        None => "another process (run as root to see which)".to_owned(),
    }
}

fn check_memlock(root: &Root, memory_bytes: u64) -> Result<(), CheckError> {
    match process::lockable_bytes(root) {
        Some(limit) if limit < memory_bytes => Err(CheckError::Memlock {
            needed: memory_bytes.div_ceil(1 << 20),
            needed_kib: memory_bytes.div_ceil(1 << 10),
            limit: limit >> 20,
        }),
        _ => Ok(()),
    }
}

//! The check before a start: everything that would make VFIO say no, found out beforehand and told with what
//! to do about it.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::HostBdf;
use super::access::Host;
use super::group::Group;
use super::iommu;
use super::process;
use super::sysfs::{PciDevice, Root};
use super::usage::{LateUsage, Usage};

/// Why devices cannot be passed through, and what to do: a fact and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// sysfs does not answer.
    Sysfs {
        /// Which function.
        bdf: HostBdf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host has no such function.
    NoSuchDevice(HostBdf),
    /// It is named twice.
    Twice(HostBdf),
    /// A bridge stays with the host.
    Bridge(HostBdf),
    /// Its DMA carries the address of a controller that keeps its PCI domain (`pci_real_dma_dev`).
    Behind {
        /// Which function.
        bdf: HostBdf,
        /// The controller, as Intel VMD.
        keeper: HostBdf,
        /// Its driver.
        driver: String,
    },
    /// There is no IOMMU.
    NoIommu {
        /// Which function.
        bdf: HostBdf,
        /// How this host gets one.
        remedy: String,
    },
    /// Another driver has it.
    NotBound {
        /// Which function.
        bdf: HostBdf,
        /// Who has it.
        driver: String,
        /// How vfio-pci gets it.
        remedy: String,
    },
    /// Others in the group belong to the host.
    NotViable {
        /// Which function.
        bdf: HostBdf,
        /// Its group.
        group: u32,
        /// The members and their drivers.
        culprits: String,
        /// How they get out of the way.
        remedy: String,
    },
    /// The firmware keeps a part of memory for itself in the device's address space.
    Reserved {
        /// Which function.
        bdf: HostBdf,
        /// The range, first and last address.
        range: (u64, u64),
    },
    /// Interrupts are not remapped, and VFIO is not told to do without.
    UnsafeInterrupts {
        /// Which function could forge them.
        bdf: HostBdf,
        /// How they get remapped.
        remedy: String,
    },
    /// VFIO is not there.
    NoVfio(&'static str),
    /// Another process has the group.
    InUse {
        /// Which function.
        bdf: HostBdf,
        /// The group's file.
        path: String,
        /// Who.
        holder: String,
    },
    /// The group's file is not ours to open.
    Permission {
        /// Which function.
        bdf: HostBdf,
        /// The file.
        path: String,
    },
    /// The group's file does not open.
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
    Memlock {
        /// Needed, in bytes.
        needed: u64,
        /// Allowed, in bytes.
        limit: u64,
    },
}

impl CheckError {
    /// What is the case.
    pub fn fact(&self) -> String {
        match self {
            Self::Sysfs { bdf, .. } => format!("cannot read what sysfs says of {bdf}"),
            Self::NoSuchDevice(bdf) => format!("there is no PCI device {bdf}"),
            Self::Twice(bdf) => format!("{bdf} is given twice"),
            Self::Bridge(bdf) => format!("{bdf} is a bridge and stays with the host"),
            Self::Behind { bdf, keeper, driver } => format!(
                "{bdf} is behind {keeper} ({driver}) and does DMA under its address, so it cannot be passed \
                 while {driver} has {keeper}"
            ),
            Self::NoIommu { bdf, .. } => format!("{bdf} is in no IOMMU group, so the host's IOMMU is off"),
            Self::NotBound { bdf, driver, .. } => format!("{bdf} is bound to {driver} instead of vfio-pci"),
            Self::NotViable {
                bdf, group, culprits, ..
            } => {
                format!("{bdf} shares IOMMU group {group} with devices that the host uses: {culprits}")
            }
            Self::Reserved {
                bdf,
                range: (first, last),
            } => format!(
                "the firmware reserves memory {first:#x}-{last:#x} for {bdf} (RMRR), and the kernel \
                 gives no such device away"
            ),
            Self::UnsafeInterrupts { bdf, .. } => {
                format!("the host's IOMMU does not remap interrupts, which {bdf} could then forge")
            }
            Self::NoVfio(what) => format!("the host has no {what}"),
            Self::InUse { bdf, path, holder } => format!("{bdf} is in use: {path} is held by {holder}"),
            Self::Permission { bdf, path } => format!("no permission to open {path} for {bdf}"),
            Self::Open { bdf, path, .. } => format!("cannot open {path} for {bdf}"),
            Self::Memlock { needed, limit } => format!(
                "the guest's memory must be locked for DMA: {} MiB, but the limit is {} MiB",
                needed.div_ceil(1 << 20),
                limit >> 20
            ),
        }
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchDevice(_) => "`strait host list` shows those there are".to_owned(),
            Self::Bridge(_) => "pass the devices behind it".to_owned(),
            Self::Behind { bdf, keeper, .. } => format!(
                "turn VMD off in the firmware setup, which is no way for a disk of a RAID volume that VMD \
                 makes: {bdf} is a device like any other then; or pass {keeper} with all that is behind it, \
                 where strait host doctor {keeper} says that the host can do without it"
            ),
            Self::NoIommu { remedy, .. }
            | Self::NotBound { remedy, .. }
            | Self::NotViable { remedy, .. }
            | Self::UnsafeInterrupts { remedy, .. } => remedy.clone(),
            Self::Reserved { .. } => {
                "look in the firmware setup for what holds it (remote management, USB legacy support), or \
                 pass another device"
                    .to_owned()
            }
            Self::NoVfio(_) => "load VFIO with: modprobe -a vfio-pci vfio_iommu_type1".to_owned(),
            Self::Permission { path, .. } => {
                format!("run as root, or give yourself the file: sudo chown $USER {path}")
            }
            Self::Memlock { needed, .. } => format!(
                "raise it with `ulimit -l {}`, LimitMEMLOCK= of the service or /etc/security/limits.conf, or \
                 run as root",
                needed.div_ceil(1 << 10)
            ),
            Self::Sysfs { .. } | Self::Twice(_) | Self::InUse { .. } | Self::Open { .. } => return None,
        })
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fact())?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Checks that `devices` can be passed to a guest of `memory_bytes`, and returns their groups. Changes
/// nothing: a group's file is opened and closed again.
///
/// # Errors
/// The first thing that is in the way.
pub fn check(host: Host<'_>, devices: &[HostBdf], memory_bytes: u64) -> Result<Vec<Group>, CheckError> {
    let usage = Usage::late(host.root);
    let mut groups: Vec<Group> = Vec::new();
    for (n, &bdf) in devices.iter().enumerate() {
        if devices[..n].contains(&bdf) {
            return Err(CheckError::Twice(bdf));
        }
        let device = device(host.root, bdf)?;
        let number = check_device(host, &usage, &device)?;
        if groups.iter().any(|group| group.number == number) {
            continue;
        }
        let group = Group::read(host.root, number).map_err(|source| CheckError::Sysfs { bdf, source })?;
        check_group(host, &usage, &group, bdf)?;
        check_reserved(host.root, number, bdf)?;
        check_interrupts(host.root, bdf)?;
        check_file(host.root, &group, bdf)?;
        groups.push(group);
    }
    if !devices.is_empty() {
        check_memlock(host.root, memory_bytes)?;
    }
    Ok(groups)
}

pub(super) fn device(root: &Root, bdf: HostBdf) -> Result<PciDevice, CheckError> {
    let device = root
        .device(bdf)
        .map_err(|source| CheckError::Sysfs { bdf, source })?;
    device.ok_or(CheckError::NoSuchDevice(bdf))
}

/// What the function itself must be; returns its group.
fn check_device(host: Host<'_>, usage: &LateUsage<'_>, device: &PciDevice) -> Result<u32, CheckError> {
    let group = check_grouped(host.root, device)?;
    check_driver(host, usage, device)?;
    Ok(group)
}

/// No bridge, not behind another function, and in an IOMMU group, which it returns.
pub(super) fn check_grouped(root: &Root, device: &PciDevice) -> Result<u32, CheckError> {
    let bdf = device.bdf;
    if device.is_bridge {
        return Err(CheckError::Bridge(bdf));
    }
    if let Some(keeper) = root.keeper(bdf) {
        let driver = root.device(keeper).ok().flatten();
        let driver = driver.map_or_else(|| "its driver".to_owned(), |one| one.driver_name().to_owned());
        return Err(CheckError::Behind { bdf, keeper, driver });
    }
    device.group.ok_or_else(|| CheckError::NoIommu {
        bdf,
        remedy: iommu::remedy(root),
    })
}

/// Bound to a driver of VFIO.
pub(super) fn check_driver(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    device: &PciDevice,
) -> Result<(), CheckError> {
    let bdf = device.bdf;
    if !device.is_given {
        let driver = device.driver_name().to_owned();
        let remedy = host.remedies.to_bind(host, usage, device);
        return Err(CheckError::NotBound { bdf, driver, remedy });
    }
    Ok(())
}

pub(super) fn check_group(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    group: &Group,
    bdf: HostBdf,
) -> Result<(), CheckError> {
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
        remedy: host.remedies.to_bind_group(host, usage, bdf),
    })
}

/// No memory that the kernel must leave mapped: such a device is "ineligible for IOMMU domain attach"
/// (drivers/iommu/intel/iommu.c), which only the kernel's log would tell. Relaxable ranges are fine.
pub(super) fn check_reserved(root: &Root, group: u32, bdf: HostBdf) -> Result<(), CheckError> {
    let regions = iommu::reserved_regions(root, group);
    match regions.iter().find(|region| region.kind == "direct") {
        Some(region) => Err(CheckError::Reserved {
            bdf,
            range: (region.first, region.last),
        }),
        None => Ok(()),
    }
}

/// What VFIO refuses as well (`vfio_iommu_type1_attach_group`). Where the kernel does not show its interrupts,
/// it is left to say so itself.
fn check_interrupts(root: &Root, bdf: HostBdf) -> Result<(), CheckError> {
    if iommu::shows_interrupts(root)
        && !iommu::remaps_interrupts(root)
        && !iommu::allows_unsafe_interrupts(root)
    {
        let remedy = iommu::remapping_remedy(root);
        return Err(CheckError::UnsafeInterrupts { bdf, remedy });
    }
    Ok(())
}

/// Opens the group as VFIO will.
pub(super) fn check_file(root: &Root, group: &Group, bdf: HostBdf) -> Result<(), CheckError> {
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
            holder: holder(root, group),
        },
        io::ErrorKind::PermissionDenied => CheckError::Permission { bdf, path },
        _ => CheckError::Open { bdf, path, source },
    })
}

/// By the group's own file, or by that of a member, which keeps the group busy too.
fn holder(root: &Root, group: &Group) -> String {
    let usage = Usage::read(root);
    let mut holders = group
        .members
        .iter()
        .filter_map(|member| usage.guest(root, member.bdf));
    match holders.next() {
        Some(process) => process.to_string(),
        None => "another process (run as root to see which)".to_owned(),
    }
}

pub(super) fn check_memlock(root: &Root, memory_bytes: u64) -> Result<(), CheckError> {
    match process::lockable_bytes(root) {
        Some(limit) if limit < memory_bytes => Err(CheckError::Memlock {
            needed: memory_bytes,
            limit,
        }),
        _ => Ok(()),
    }
}

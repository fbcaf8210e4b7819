//! The check before a start: everything that would make VFIO say no, found out beforehand and told with what
//! to do about it.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::HostBdf;
use super::access::Host;
use super::group::Group;
use super::iommu;
use super::process;
use super::refusal::CheckError;
use super::sysfs::{PciDevice, Root};
use super::usage::{LateUsage, Usage};

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

//! Containers and groups: how a process comes to have a device.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use libc::c_ulong;
use vfio_bindings::bindings::vfio as uapi;
use vfio_ioctls::VfioContainer;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val};

use super::{check, request};

const CHECK_EXTENSION: c_ulong = request(1);
const SET_IOMMU: c_ulong = request(2);
const GROUP_GET_STATUS: c_ulong = request(3);
const GROUP_SET_CONTAINER: c_ulong = request(4);
const GROUP_UNSET_CONTAINER: c_ulong = request(5);
const GROUP_GET_DEVICE_FD: c_ulong = request(6);

/// The descriptor of the container's file.
pub(crate) fn container_file(container: &VfioContainer) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `container` lives, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(container.as_raw_fd()) }
}

/// True when the IOMMU of the container, which has a group, enforces coherent DMA.
pub(crate) fn is_coherent(container: BorrowedFd<'_>) -> bool {
    // SAFETY: the argument is a number.
    let answer = unsafe { ioctl_with_val(&container, CHECK_EXTENSION, uapi::VFIO_DMA_CC_IOMMU.into()) };
    answer == 1
}

/// Gives the container, which has a group, its IOMMU.
pub(crate) fn set_type1v2(container: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { ioctl_with_val(&container, SET_IOMMU, uapi::VFIO_TYPE1v2_IOMMU.into()) })
}

/// True when all devices of the group are given up by the host.
pub(crate) fn is_viable(group: BorrowedFd<'_>) -> io::Result<bool> {
    let argsz = size_of::<uapi::vfio_group_status>() as u32;
    let mut status = uapi::vfio_group_status { argsz, flags: 0 };
    // SAFETY: the kernel reads and writes one complete `vfio_group_status`.
    check(unsafe { ioctl_with_mut_ref(&group, GROUP_GET_STATUS, &mut status) })?;
    Ok(status.flags & uapi::VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// Puts the group into a container.
pub(crate) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the kernel reads one descriptor.
    check(unsafe { ioctl_with_ref(&group, GROUP_SET_CONTAINER, &container.as_raw_fd()) })
}

/// Takes the group out of its container.
pub(crate) fn unset_container(group: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    check(unsafe { ioctl(&group, GROUP_UNSET_CONTAINER) })
}

/// Opens a device of the group by its name in sysfs.
pub(crate) fn open_device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    // SAFETY: the kernel reads a string that ends with zero.
    let fd = unsafe { ioctl_with_ptr(&group, GROUP_GET_DEVICE_FD, name.as_ptr()) };
    check(fd)?;
    // SAFETY: the kernel has just opened the descriptor for us, and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

//! Calls of the kernel that the compiler cannot check.

#![expect(unsafe_code, reason = "ioctl, mmap, and memory that a guest writes meanwhile")]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::ptr;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_TYPE1v2_IOMMU, vfio_iommu_type1_dma_map,
};
use vmm_sys_util::ioctl::{ioctl_with_ptr, ioctl_with_ref, ioctl_with_val};

/// ioctls of VFIO (`_IO(';', 100 + n)`, include/uapi/linux/vfio.h).
const SET_IOMMU: u64 = 0x3b66;
const GROUP_SET_CONTAINER: u64 = 0x3b68;
const GROUP_GET_DEVICE_FD: u64 = 0x3b6a;
const IOMMU_MAP_DMA: u64 = 0x3b71;

/// Where large pages begin.
const LARGE: usize = 2 << 20;

/// Anonymous memory, which begins where a page of 2 MiB may. It is unmapped when dropped.
pub(crate) struct Mapping {
    /// All that was mapped, of which the memory begins at `start`.
    whole: (usize, usize),
    start: usize,
    len: usize,
}

impl Mapping {
    /// Of the host's pool of 2 MiB pages with `is_pool`.
    pub(crate) fn new(len: usize, is_pool: bool) -> io::Result<Self> {
        let pool = match is_pool {
            true => MapFlags::HUGETLB | MapFlags::HUGE_2MB,
            false => MapFlags::NORESERVE,
        };
        let whole = if is_pool { len } else { len + LARGE };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address at which nothing is mapped.
        let address =
            unsafe { mmap_anonymous(ptr::null_mut(), whole, protection, MapFlags::PRIVATE | pool)? };
        Ok(Self {
            whole: (address as usize, whole),
            start: (address as usize).next_multiple_of(LARGE),
            len,
        })
    }

    pub(crate) fn address(&self) -> usize {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All of it. A guest that runs meanwhile is none of this process's borrows: it is to be given the memory afterwards.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is mapped for as long as `self` is, readable and writable, and borrowed with it.
        unsafe { std::slice::from_raw_parts_mut(self.start as *mut u8, self.len) }
    }

    /// A word that a guest writes meanwhile, at a multiple of four.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4));
        // SAFETY: it is inside the mapping, and aligned; a guest's write of it is one of four bytes.
        unsafe { ptr::read_volatile((self.start + offset) as *const u32) }
    }

    pub(crate) fn advise_huge_pages(&self) {
        // SAFETY: advice changes nothing of what the memory holds.
        let _ = unsafe { madvise(self.start as *mut c_void, self.len, Advice::LinuxHugepage) };
    }

    /// Gives a guest `len` bytes from `offset` on, as memory slot `slot` at this guest address.
    pub(crate) fn give(&self, vm: &VmFd, slot: u32, offset: usize, len: usize, guest: u64) -> io::Result<()> {
        assert!(offset + len <= self.len);
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: len as u64,
            userspace_addr: (self.start + offset) as u64,
        };
        // SAFETY: the range is inside the mapping, which `Guest` keeps for as long as the virtual machine and its CPU.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (address, len) = self.whole;
        // SAFETY: nothing borrows it any more.
        let _ = unsafe { munmap(address as *mut c_void, len) };
    }
}

/// Takes memory of this process from the host.
pub(crate) fn populate(start: usize, len: usize) -> io::Result<()> {
    // SAFETY: populating changes nothing of what the memory holds, and fails where nothing is mapped.
    Ok(unsafe { madvise(start as *mut c_void, len, Advice::LinuxPopulateWrite) }?)
}

/// Puts a group into a container, and gives the container its IOMMU.
pub(crate) fn join_container(group: &File, container: &File) -> io::Result<()> {
    // SAFETY: the kernel reads one int.
    checked(unsafe { ioctl_with_ref(group, GROUP_SET_CONTAINER, &container.as_raw_fd()) })?;
    // SAFETY: the argument is a number.
    checked(unsafe { ioctl_with_val(container, SET_IOMMU, VFIO_TYPE1v2_IOMMU.into()) }).map(drop)
}

/// Opens a function of a group by its address.
pub(crate) fn open_function(group: &File, bdf: &str) -> io::Result<File> {
    let name = CString::new(bdf)?;
    // SAFETY: the kernel reads a string that ends with a zero.
    let fd = checked(unsafe { ioctl_with_ptr(group, GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Maps `len` bytes of `ram` from `offset` on for DMA.
pub(crate) fn map_dma(
    container: &File,
    ram: &Mapping,
    offset: usize,
    len: usize,
    iova: u64,
) -> io::Result<()> {
    assert!(offset + len <= ram.len);
    let map = vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
        flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: (ram.start + offset) as u64,
        iova,
        size: len as u64,
    };
    // SAFETY: the kernel reads a structure of this length. The range is inside the mapping, and its pages stay pinned, nobody
    // else's, until the container is closed.
    checked(unsafe { ioctl_with_ref(container, IOMMU_MAP_DMA, &map) }).map(drop)
}

fn checked(result: i32) -> io::Result<i32> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

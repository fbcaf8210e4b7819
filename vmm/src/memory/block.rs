//! One mapping of RAM in this process.

#![expect(
    unsafe_code,
    reason = "memory is mapped and unmapped here, and nowhere else in this package"
)]

use std::fs::File;
use std::io;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use strait_devices::region::{HostAddress, HostBacking};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};

use super::error::MemoryError;
use super::source::RamSource;

/// The pages that page tables of CPUs and IOMMUs have beside those of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
const GIANT_PAGE: usize = 1 << 30;

/// Nodes of memory that a mask can name.
const NODES: usize = u64::BITS as usize;

/// A mapping of this process, unmapped on drop.
#[derive(Debug)]
pub(super) struct RamBlock {
    address: usize,
    len: usize,
}

impl RamBlock {
    /// Maps `len` bytes of `source`, from `offset` on where it is a file, for RAM at `start`.
    ///
    /// Its address has the same place in a large page as that of the guest, so that page tables of both kinds use the
    /// pages that there are: of 1 GiB where the block has one, else of 2 MiB.
    pub(super) fn map(
        start: GuestAddress,
        len: u64,
        source: &RamSource,
        offset: u64,
    ) -> Result<Self, MemoryError> {
        if let Some(page) = source.page
            && ((start.0 | len | offset) & (page.bytes() - 1)) != 0
        {
            let start = start.0;
            return Err(MemoryError::Pages { start, len, page });
        }
        let len = len as usize;
        let align = if len >= GIANT_PAGE { GIANT_PAGE } else { HUGE_PAGE };
        let block = Self::reserve(len, align, start.0 as usize & (align - 1))?;
        block.back(source, offset)?;
        if let Some(nodes) = source.nodes {
            let bound = bind(block.address, len, nodes.mask());
            bound.map_err(|error| MemoryError::Nodes(nodes.to_string(), error))?;
        }
        if source.page.is_none() {
            block.advise_huge_pages();
        }
        Ok(block)
    }

    /// The first `len` bytes of a file, anywhere.
    pub(super) fn of_file(file: &File, len: u64) -> io::Result<Self> {
        let (len, protection) = (len as usize, ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping at an address the kernel chooses touches no memory that exists.
        let mapped = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) };
        let address = mapped? as usize;
        Ok(Self { address, len })
    }

    /// Takes addresses, `phase` bytes behind a multiple of `align`, with nothing there.
    fn reserve(len: usize, align: usize, phase: usize) -> Result<Self, MemoryError> {
        let failed = |errno: rustix::io::Errno| MemoryError::Map(len, errno.into());
        // One large page more than wanted, so that such an address is inside; the rest goes back below.
        let whole = len
            .checked_add(align)
            .ok_or(MemoryError::Map(len, io::ErrorKind::OutOfMemory.into()))?;
        // Not reserved: a guest without devices uses what it touches, and may have more RAM than is free now.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address the kernel chooses touches no memory that exists.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), whole, ProtFlags::READ | ProtFlags::WRITE, flags) }
                .map_err(failed)? as usize;
        let address = start + (phase.wrapping_sub(start) & (align - 1));
        unmap(start, address - start);
        unmap(address + len, start + whole - (address + len));
        Ok(Self { address, len })
    }

    /// Puts the pages of a file there; anonymous memory is there already.
    fn back(&self, source: &RamSource, offset: u64) -> Result<(), MemoryError> {
        let Some(file) = &source.file else { return Ok(()) };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the range is this block's own mapping, to which nothing refers yet; the new one takes its place.
        let mapped = unsafe { mmap(self.address as *mut _, self.len, protection, flags, file, offset) };
        mapped
            .map(drop)
            .map_err(|errno| MemoryError::Map(self.len, errno.into()))
    }

    fn advise_huge_pages(&self) {
        // SAFETY: the range is this block's mapping; the advice changes no contents.
        let advised = unsafe { madvise(self.address as *mut _, self.len, Advice::LinuxHugepage) };
        if let Err(errno) = advised {
            log::info!("Transparent huge pages are not available ({errno}); DMA mapping will be slower");
        }
    }

    /// Faults a part in. A kernel before 5.14 cannot, and does it when the part is pinned.
    pub(super) fn populate(&self, offset: usize, len: usize) -> Result<(), MemoryError> {
        let start = self.address + offset;
        // SAFETY: the part lies in the mapping; faulting pages in changes no contents.
        match unsafe { madvise(start as *mut _, len, Advice::LinuxPopulateWrite) } {
            // MADV_POPULATE_WRITE is unknown there (mm/madvise.c), and nothing else makes this call invalid.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(errno) => Err(MemoryError::Populate(len as u64, errno.into())),
        }
    }

    /// The block as the guest's RAM at `start`.
    pub(super) fn region(&self, start: GuestAddress) -> Result<GuestRegionMmap, MemoryError> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: the range is mapped readable and writable, and `GuestRam` drops the region before the block.
        let region = unsafe { MmapRegion::build_raw(self.address as *mut u8, self.len, protection, flags) }?;
        GuestRegionMmap::new(region, start).ok_or(MemoryError::Region(MmapRegionError::InvalidPointer))
    }
}

impl HostBacking for RamBlock {
    fn host_address(&self) -> HostAddress {
        HostAddress(self.address as u64)
    }

    fn len_bytes(&self) -> u64 {
        self.len as u64
    }
}

impl Drop for RamBlock {
    fn drop(&mut self) {
        unmap(self.address, self.len);
    }
}

/// Takes the pages of a mapping, none of which is there yet, from the nodes in `mask` alone (mbind(2)).
fn bind(address: usize, len: usize, mask: u64) -> io::Result<()> {
    // SAFETY: the range is a mapping of the caller's; the kernel reads one word of `NODES` bits at `mask`, and one bit
    // less than it is told (`get_nodes`, mm/mempolicy.c).
    let code = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            address,
            len,
            libc::MPOL_BIND,
            &raw const mask,
            NODES + 1,
            0,
        )
    };
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unmaps a part of a mapping that a [`RamBlock`] owns or is about to own; nothing for an empty one.
fn unmap(address: usize, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: callers pass ranges of their own mapping that nothing else refers to any more.
    if let Err(errno) = unsafe { munmap(address as *mut _, len) } {
        log::warn!("Cannot unmap {len:#x} bytes of guest memory: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn addresses_have_the_guests_place_in_a_large_page() {
        let source = RamSource::default();
        for (start, len, page) in [
            (4 * GIB, 3 * GIB, GIB),
            (GIB + 0x20_0000, 2 * GIB, GIB),
            (0, 64 << 20, 2 << 20),
        ] {
            let block = RamBlock::map(GuestAddress(start), len, &source, 0).expect("addresses");
            assert_eq!(block.host_address().0 % page, start % page, "{start:#x}");
        }
    }

    #[test]
    fn memory_comes_from_a_node_that_there_is() {
        let block = RamBlock::reserve(1 << 20, HUGE_PAGE, 0).expect("addresses");
        // A kernel without NUMA has no such call.
        match bind(block.address, block.len, 1) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return,
            bound => bound.expect("node 0 is there"),
        }
        block.populate(0, block.len).expect("memory");
        bind(block.address, block.len, 1 << 63).expect_err("no host has so many");
    }
}

//! Guest RAM: anonymous memory, 2 MiB aligned, with transparent huge pages advised.
//!
//! Anonymous rather than shared, because shared memory gets no huge pages on stock hosts, and pinning
//! 4 KiB pages for DMA takes about ten times as long.

#![expect(
    unsafe_code,
    reason = "memory is mapped and unmapped here, and nowhere else in this package"
)]

use std::io;
use std::ptr;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use strait_devices::iommu::vtd::TableMemory;
use strait_devices::region::{HostAddress, HostBacking};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionCollectionError, GuestRegionMmap, MmapRegion};

use crate::layout::Range;

/// The largest page a host's page tables and IOMMU use without asking for hugetlb.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that are taken from the host at a time: a fraction of a second, even in small pages.
const POPULATE_CHUNK: usize = 256 << 20;

/// RAM that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The kernel gave no addresses: the process may have a limit of them (RLIMIT_AS).
    #[error("cannot reserve {0:#x} bytes of guest memory; give a smaller --memory")]
    Map(usize, #[source] io::Error),
    /// The kernel has less than it promised.
    #[error("the host has no {0:#x} bytes of memory left for the guest's RAM; give a smaller --memory")]
    Populate(u64, #[source] io::Error),
    /// vm-memory refused a mapping.
    #[error("guest memory cannot be used")]
    Region(#[from] MmapRegionError),
    /// vm-memory refused the set of mappings.
    #[error("guest memory blocks do not fit together")]
    Collection(#[from] GuestRegionCollectionError),
}

/// All RAM of a guest.
///
/// Field order is drop order: `memory` points into what `blocks` maps.
pub struct GuestRam {
    memory: GuestMemoryMmap,
    blocks: Vec<(GuestAddress, Arc<RamBlock>)>,
}

impl GuestRam {
    /// Maps RAM for each range of guest physical memory, whole pages of 4 KiB.
    ///
    /// # Errors
    /// When the host cannot give that much address space.
    pub fn new(ranges: &[Range]) -> Result<Self, MemoryError> {
        let mut blocks = Vec::new();
        let mut regions = Vec::new();
        for &Range { start, len } in ranges {
            let block = RamBlock::map(len as usize)?;
            regions.push(Arc::new(block.region(start)?));
            blocks.push((start, Arc::new(block)));
        }
        Ok(Self {
            memory: GuestMemoryMmap::from_arc_regions(regions)?,
            blocks,
        })
    }

    /// Takes all of it from the host now, and tells after each piece how many bytes that was; an error of
    /// `done` ends it.
    ///
    /// Pinning for DMA would do that as well, in one ioctl that says nothing until it is done. A range that is
    /// there already is pinned in a fraction of the time, and still with one ioctl.
    ///
    /// # Errors
    /// When the host has no memory left.
    pub fn populate<E: From<MemoryError>>(
        &self,
        mut done: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for (_, block) in &self.blocks {
            for offset in (0..block.len).step_by(POPULATE_CHUNK) {
                let len = POPULATE_CHUNK.min(block.len - offset);
                block.populate(offset, len)?;
                done(len as u64)?;
            }
        }
        Ok(())
    }

    /// The addresses of each block in this process: the first one and the one behind the last.
    pub fn host_ranges(&self) -> Vec<(u64, u64)> {
        let range = |(_, block): &(GuestAddress, Arc<RamBlock>)| {
            let start = block.address as u64;
            (start, start + block.len as u64)
        };
        self.blocks.iter().map(range).collect()
    }

    /// The RAM as bytes, for loading and for emulated devices.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The RAM for those who read tables in it while the guest runs; it stays for as long as they do.
    pub fn tables(&self) -> Arc<dyn TableMemory> {
        Arc::new(TableRam {
            memory: self.memory.clone(),
            _blocks: self.blocks.iter().map(|(_, block)| block.clone()).collect(),
        })
    }

    /// Each contiguous block with its guest address.
    pub fn blocks(&self) -> impl Iterator<Item = (GuestAddress, Arc<dyn HostBacking>)> {
        self.blocks
            .iter()
            .map(|(start, block)| (*start, block.clone() as Arc<dyn HostBacking>))
    }
}

/// Field order is drop order: `memory` points into the blocks.
struct TableRam {
    memory: GuestMemoryMmap,
    _blocks: Vec<Arc<RamBlock>>,
}

impl TableMemory for TableRam {
    fn load(&self, at: GuestAddress) -> Option<u64> {
        TableMemory::load(&self.memory, at)
    }

    fn store(&self, at: GuestAddress, value: u32) -> bool {
        TableMemory::store(&self.memory, at, value)
    }
}

/// One mapping of anonymous memory, unmapped on drop.
#[derive(Debug)]
struct RamBlock {
    address: usize,
    len: usize,
}

impl RamBlock {
    fn map(len: usize) -> Result<Self, MemoryError> {
        let failed = |errno: rustix::io::Errno| MemoryError::Map(len, errno.into());
        // One huge page more than wanted, so that an aligned range is inside; the rest goes back below.
        let whole = len + HUGE_PAGE;
        // Not reserved: a guest without devices uses what it touches, and may have more RAM than is free now.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address the kernel chooses touches no memory that exists.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), whole, ProtFlags::READ | ProtFlags::WRITE, flags) }
                .map_err(failed)? as usize;
        let address = start.next_multiple_of(HUGE_PAGE);
        unmap(start, address - start);
        unmap(address + len, start + whole - (address + len));
        let block = Self { address, len };
        // SAFETY: the range is the mapping made above; the advice changes no contents.
        let advised = unsafe { madvise(block.address as *mut _, len, Advice::LinuxHugepage) };
        if let Err(errno) = advised {
            log::info!("Transparent huge pages are not available ({errno}); DMA mapping will be slower");
        }
        Ok(block)
    }

    /// Faults a part in. A kernel before 5.14 cannot, and does it when the part is pinned.
    fn populate(&self, offset: usize, len: usize) -> Result<(), MemoryError> {
        let start = self.address + offset;
        // SAFETY: the part lies in the mapping; faulting pages in changes no contents.
        match unsafe { madvise(start as *mut _, len, Advice::LinuxPopulateWrite) } {
            // MADV_POPULATE_WRITE is unknown there (mm/madvise.c), and nothing else makes this call invalid.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(errno) => Err(MemoryError::Populate(len as u64, errno.into())),
        }
    }

    fn region(&self, start: GuestAddress) -> Result<GuestRegionMmap, MemoryError> {
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

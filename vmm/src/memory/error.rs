//! Why RAM cannot be had.

use std::io;

use vm_memory::GuestRegionCollectionError;
use vm_memory::mmap::MmapRegionError;

use crate::config::PageSize;

/// RAM that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The kernel gave no addresses: the process may have a limit of them (RLIMIT_AS).
    #[error("cannot reserve {0:#x} bytes of guest memory; give a smaller --memory")]
    Map(usize, #[source] io::Error),
    /// The kernel has less than it promised.
    #[error("the host has no {0:#x} bytes of memory left for the guest's RAM; give a smaller --memory")]
    Populate(u64, #[source] io::Error),
    /// The pages that were asked for do not fit where RAM must be.
    #[error(
        "--memory: RAM at {start:#x}, {len:#x} bytes, is no whole number of pages of {page}: the host's IOMMU leaves no other \
         place; give smaller pages"
    )]
    Pages {
        /// Guest address of the block.
        start: u64,
        /// Its length in bytes.
        len: u64,
        /// The pages that were asked for; a block begins and ends with a whole one.
        page: PageSize,
    },
    /// The kernel does not take memory from these nodes.
    #[error("--memory: the kernel takes no memory from host-nodes {0}")]
    Nodes(String, #[source] io::Error),
    /// vm-memory refused a mapping.
    #[error("guest memory cannot be used")]
    Region(#[from] MmapRegionError),
    /// vm-memory refused the set of mappings.
    #[error("guest memory blocks do not fit together")]
    Collection(#[from] GuestRegionCollectionError),
}

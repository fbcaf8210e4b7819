//! Guest RAM: by itself anonymous memory with transparent huge pages advised.
//!
//! Anonymous rather than shared, because shared memory gets no huge pages on stock hosts, and pinning
//! 4 KiB pages for DMA takes about ten times as long. Who wants other pages says so: see [`RamSource`].

mod block;
mod error;
mod pool;
mod populate;
mod source;

use std::sync::Arc;

use strait_devices::iommu::vtd::TableMemory;
use strait_devices::region::HostBacking;
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub use error::MemoryError;
pub use pool::PoolError;
pub use source::RamSource;

use self::block::RamBlock;
use crate::config::MemoryConfig;
use crate::layout::Range;

/// All RAM of a guest.
///
/// Field order is drop order: `memory` points into what `blocks` maps.
pub struct GuestRam {
    memory: GuestMemoryMmap,
    blocks: Vec<(GuestAddress, Arc<RamBlock>)>,
}

/// The source of RAM as `wanted`. Its large pages are reserved from now on: no other program takes them.
///
/// # Errors
/// When the host does not have them, or the nodes that they are to be of.
pub fn source(wanted: &MemoryConfig) -> Result<RamSource, PoolError> {
    pool::source(wanted)
}

impl GuestRam {
    /// Maps RAM from `source` for each range of guest physical memory, whole pages of 4 KiB.
    ///
    /// # Errors
    /// When the host cannot give that much address space, or the source has no such pages.
    pub fn new(ranges: &[Range], source: &RamSource) -> Result<Self, MemoryError> {
        let mut blocks = Vec::new();
        let mut regions = Vec::new();
        let mut offset = 0;
        for &Range { start, len } in ranges {
            let block = RamBlock::map(start, len, source, offset)?;
            regions.push(Arc::new(block.region(start)?));
            blocks.push((start, Arc::new(block)));
            offset += len;
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
    pub fn populate<E: From<MemoryError>>(&self, done: impl FnMut(u64) -> Result<(), E>) -> Result<(), E> {
        populate::all(self.blocks.iter().map(|(_, block)| &**block), done)
    }

    /// The addresses of each block in this process: the first one and the one behind the last.
    pub fn host_ranges(&self) -> Vec<(u64, u64)> {
        let range = |(_, block): &(GuestAddress, Arc<RamBlock>)| {
            let start = block.host_address().0;
            (start, start + block.len_bytes())
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

//! Host memory that stands in a guest's address space.

use std::fmt;
use std::sync::Arc;

/// An address in the process that runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress(pub u64);

impl HostAddress {
    /// The address `len_bytes` further on in the same mapping.
    pub fn offset(self, len_bytes: u64) -> Self {
        Self(self.0 + len_bytes)
    }

    /// The same, `None` where there is no such address.
    pub fn checked_offset(self, len_bytes: u64) -> Option<Self> {
        self.0.checked_add(len_bytes).map(Self)
    }
}

/// Host memory that a guest may access directly: guest RAM, or the mmap of a BAR.
///
/// Whoever implements this promises that `len_bytes` bytes at `host_address` stay mapped in this process
/// for as long as the value lives, both page aligned; hypervisor and IOMMU mappings are built on it.
pub trait HostBacking: fmt::Debug + Send + Sync {
    /// Start of the mapping in this process.
    fn host_address(&self) -> HostAddress;

    /// Length in bytes, a multiple of the page size.
    fn len_bytes(&self) -> u64;
}

/// What kind of memory a region's mapped pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Guest RAM. A mapping that fails is an error.
    Ram,
    /// Registers or memory of a device. A listener that cannot map them says what no longer works.
    Device,
    /// What a guest reads of a device without a trap, and cannot write. No device ever reaches it by DMA.
    Image,
}

/// A part of a region that needs no trap.
#[derive(Clone, Debug)]
pub struct MappedPiece {
    /// Bytes from the region's start, page aligned.
    pub offset: u64,
    /// The host memory that stands there.
    pub backing: Arc<dyn HostBacking>,
}

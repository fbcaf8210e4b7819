//! What a device can reach by DMA: addresses, rights, and the seam to the host's IOMMU.

use std::error::Error;

use bitflags::bitflags;

use crate::region::HostAddress;

/// An address as a device puts it on the bus, before any IOMMU translates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

bitflags! {
    /// What a device may do with a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
    }
}

/// Why a DMA mapping failed; the text says what and where, errno is in the source chain.
pub type DomainError = Box<dyn Error + Send + Sync>;

/// An I/O address space of the host that devices are attached to.
pub trait Domain: Send + Sync {
    /// Lets the devices of the domain reach `len_bytes` at `host` by DMA to `iova`. All page aligned; the
    /// range must not overlap another mapping. The caller keeps the memory alive until it is unmapped.
    fn map(&self, iova: Iova, host: HostAddress, len_bytes: u64, access: Access) -> Result<(), DomainError>;

    /// Takes back exactly one earlier `map` of the same start and length (type1v2 cannot split one).
    fn unmap(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError>;
}

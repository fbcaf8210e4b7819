//! A piece of a BAR, mapped into this process so that the guest can have it without traps.

use std::io;
use std::os::fd::BorrowedFd;

use strait_devices::region::{HostAddress, HostBacking};

use crate::sys::MappedRange;

/// The page size of x86, below which nothing is mapped.
pub const PAGE_SIZE: u64 = 4096;

/// The sizes that the host's page tables map at once: since Linux 6.12 also for BARs (`huge_fault` of
/// vfio-pci), if the process address is congruent to the BAR's. Fewer faults, and larger pages in the
/// guest's second-level tables.
const HUGE_PAGE_SIZES: [u64; 2] = [1 << 30, 1 << 21];

/// An owned mapping of a BAR piece. Strait never looks into it: trapped accesses go through the file, and
/// only the hypervisor and the IOMMU use the address.
#[derive(Debug)]
pub struct Mapping {
    range: MappedRange,
}

impl Mapping {
    /// Maps `len_bytes` of the region that stands at `region_offset` in `fd`, from `offset` in it.
    ///
    /// # Errors
    /// What mmap says.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        region_offset: u64,
        offset: u64,
        len_bytes: u64,
    ) -> io::Result<Self> {
        let at = region_offset
            .checked_add(offset)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let len = usize::try_from(len_bytes).map_err(io::Error::other)?;
        let align = alignment(len_bytes);
        // BARs are naturally aligned, so that an offset in the BAR has the low bits of the bus address.
        let phase = offset % align;
        let range = MappedRange::new(fd, at, len, align as usize, phase as usize)?;
        Ok(Self { range })
    }
}

impl HostBacking for Mapping {
    fn host_address(&self) -> HostAddress {
        HostAddress(self.range.address())
    }

    fn len_bytes(&self) -> u64 {
        self.range.len()
    }
}

fn alignment(len_bytes: u64) -> u64 {
    HUGE_PAGE_SIZES
        .into_iter()
        .find(|&size| size <= len_bytes)
        .unwrap_or(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_large_piece_is_congruent_to_its_offset() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(8 << 20).expect("a sparse file");
        let mapping = Mapping::new(file.as_fd(), 0, 0x3000, 4 << 20).expect("mmap");
        assert_eq!(mapping.host_address().0 % (2 << 20), 0x3000);
        assert_eq!(mapping.len_bytes(), 4 << 20);
    }

    #[test]
    fn a_piece_that_wraps_around_is_refused() {
        let file = tempfile::tempfile().expect("a temporary file");
        assert!(Mapping::new(file.as_fd(), u64::MAX, 0x1000, 0x1000).is_err());
        assert!(Mapping::new(file.as_fd(), 0, 0, !0xfff).is_err());
    }
}

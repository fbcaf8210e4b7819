//! Memory of this process that the device may be let at.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use strait_devices::dma::{Access, Domain, Iova};
use strait_devices::region::HostAddress;
use strait_vfio::Container;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// Page frame number in an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const FRAME: u64 = (1 << 55) - 1;

/// Anonymous pages. Whoever maps one for DMA unmaps it, or closes the container, before they go.
pub(super) struct Pages(MmapRegion);

impl Pages {
    pub(super) fn new(count: u64) -> Result<Self> {
        let len = usize::try_from(count * PAGE).context("So much memory cannot be addressed")?;
        Ok(Self(MmapRegion::new(len).context("Cannot get memory")?))
    }

    /// The first page whose address is a multiple of so many pages.
    pub(super) fn first_aligned(&self, pages: u64) -> u64 {
        let at = self.address(0).0 / PAGE;
        at.next_multiple_of(pages) - at
    }

    /// Fills a page with `word`, over and over.
    pub(super) fn fill(&self, page: u64, word: u64) -> Result<()> {
        let bytes: Vec<u8> = word.to_le_bytes().repeat(PAGE as usize / 8);
        let slice = self.0.get_slice(offset(page), PAGE as usize)?;
        Ok(slice.write_slice(&bytes, 0)?)
    }

    /// True if a page holds nothing but `word`.
    pub(super) fn holds(&self, page: u64, word: u64) -> Result<bool> {
        let mut bytes = vec![0; PAGE as usize];
        let slice = self.0.get_slice(offset(page), PAGE as usize)?;
        slice.read_slice(&mut bytes, 0)?;
        Ok(bytes.chunks_exact(8).all(|chunk| *chunk == word.to_le_bytes()))
    }

    /// Lets the device at `count` pages from `first` on.
    pub(super) fn map(
        &self,
        container: &Container,
        iova: u64,
        first: u64,
        count: u64,
        access: Access,
    ) -> Result<()> {
        let mapped = container.map(Iova(iova), self.address(first), count * PAGE, access);
        mapped.map_err(|error| anyhow::anyhow!(error))
    }

    /// Makes a page exist.
    pub(super) fn touch(&self, page: u64) -> Result<()> {
        let slice = self.0.get_slice(offset(page), 1)?;
        Ok(slice.write_slice(&[1], 0)?)
    }

    /// Where a page is in the memory of this machine; only root is told.
    pub(super) fn physical(&self, page: u64) -> Result<u64> {
        let place = self.places(page, 1)?.pop();
        place.context("/proc/self/pagemap is empty")
    }

    /// The same for `count` pages from `first` on.
    pub(super) fn places(&self, first: u64, count: u64) -> Result<Vec<u64>> {
        let mut entries = vec![0; count as usize * 8];
        let at = self.address(first).0 / PAGE * 8;
        File::open("/proc/self/pagemap")
            .and_then(|map| map.read_exact_at(&mut entries, at))
            .context("Cannot read /proc/self/pagemap")?;
        let frame = |entry: &[u8]| {
            let entry = entry.try_into().map_or(0, u64::from_ne_bytes);
            ensure!(
                entry & FRAME != 0,
                "/proc/self/pagemap does not tell where a page is"
            );
            Ok((entry & FRAME) * PAGE)
        };
        entries.chunks_exact(8).map(frame).collect()
    }

    fn address(&self, page: u64) -> HostAddress {
        HostAddress(self.0.as_ptr() as u64 + page * PAGE)
    }
}

/// Takes pages back from the device.
pub(super) fn unmap(container: &Container, iova: u64, count: u64) -> Result<()> {
    let unmapped = container.unmap(Iova(iova), count * PAGE);
    unmapped.map_err(|error| anyhow::anyhow!(error))
}

fn offset(page: u64) -> usize {
    (page * PAGE) as usize
}

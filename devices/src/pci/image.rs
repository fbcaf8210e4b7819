//! A page of configuration space as host memory: the guest reads it without leaving, its writes trap.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::pci::spec::CONFIG_SPACE_SIZE;
use crate::region::{HostAddress, HostBacking};

/// Bytes of what is stored at once, so that a reader never sees half of a register.
const WORD: usize = size_of::<u32>();

/// The configuration space of one function of the root bus as a guest reads it, 4 KiB.
pub struct Image(MmapRegion);

impl Image {
    /// A page of zeros; none where the host gives no memory: reads trap then, and find the same.
    pub(crate) fn new() -> Option<Arc<Self>> {
        let page = MmapRegion::new(CONFIG_SPACE_SIZE).ok()?;
        Some(Arc::new(Self(page)))
    }

    /// What is read where no function is: ones.
    pub(crate) fn of_nobody() -> Option<Arc<Self>> {
        let image = Self::new()?;
        image.show(&[0xff; CONFIG_SPACE_SIZE], 0, CONFIG_SPACE_SIZE);
        Some(image)
    }

    /// Shows `len` bytes of `config` from `register` on, and what shares a double word with them.
    pub(crate) fn show(&self, config: &[u8; CONFIG_SPACE_SIZE], register: usize, len: usize) {
        let page = self.0.as_volatile_slice();
        let end = (register + len).next_multiple_of(WORD).min(CONFIG_SPACE_SIZE);
        let words = config[..end].as_chunks::<WORD>().0.iter().enumerate();
        for (index, word) in words.skip(register / WORD) {
            // A word of the page is inside it, and aligned.
            let _always = page.store(u32::from_ne_bytes(*word), index * WORD, Ordering::Relaxed);
        }
    }
}

impl HostBacking for Image {
    fn host_address(&self) -> HostAddress {
        HostAddress(self.0.as_ptr() as u64)
    }

    fn len_bytes(&self) -> u64 {
        self.0.size() as u64
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image at {:#x}", self.host_address().0)
    }
}

#[cfg(test)]
impl Image {
    /// What a guest reads.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; CONFIG_SPACE_SIZE];
        let page = self.0.as_volatile_slice();
        page.read_slice(&mut bytes, 0).expect("all of it");
        bytes
    }
}

//! The guest's memory, as the unit reads its tables and answers in it.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Guest RAM, read a whole entry at a time. Nothing but RAM answers: a table or a status word in device
/// memory does not exist.
pub trait TableMemory: Send + Sync {
    /// Loads one aligned quadword at once, so that a guest which writes meanwhile never makes half an entry.
    fn load(&self, at: GuestAddress) -> Option<u64>;

    /// Stores one aligned doubleword after everything that was done before; false where no RAM is.
    fn store(&self, at: GuestAddress, value: u32) -> bool;
}

impl TableMemory for GuestMemoryMmap {
    // By the region that holds it: an entry lies in one, and looking for several costs more than the rest of
    // a walk.
    fn load(&self, at: GuestAddress) -> Option<u64> {
        let (region, at) = self.to_region_addr(at)?;
        region.load(at, Ordering::Acquire).ok()
    }

    fn store(&self, at: GuestAddress, value: u32) -> bool {
        let region = self.to_region_addr(at);
        region.is_some_and(|(region, at)| region.store(value, at, Ordering::Release).is_ok())
    }
}

//! The guest's memory, as the unit reads its tables and as devices reach it.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::range_map::RangeMap;
use crate::region::{HostAddress, MemoryKind};

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

/// What of the guest's memory a device can be let at: RAM, and BARs where devices have peers.
#[derive(Default)]
pub(crate) struct Slots {
    slots: RangeMap<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    host: HostAddress,
    kind: MemoryKind,
}

/// A part of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) host: HostAddress,
    pub(crate) kind: MemoryKind,
}

impl Slots {
    /// False when the place is taken.
    pub(crate) fn insert(&mut self, at: GuestAddress, len: u64, host: HostAddress, kind: MemoryKind) -> bool {
        self.slots.insert(at.0, len, Slot { host, kind }).is_ok()
    }

    pub(crate) fn remove(&mut self, at: GuestAddress) {
        self.slots.remove(at.0);
    }

    /// Bytes in all slots.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.all().map(|piece| piece.len).sum()
    }

    /// All slots.
    pub(crate) fn all(&self) -> impl Iterator<Item = Piece> {
        self.slots.iter().map(|(at, last, slot)| Piece {
            at,
            len: last - at + 1,
            host: slot.host,
            kind: slot.kind,
        })
    }

    /// The parts of `len` bytes at `at` that are in slots, split where one slot ends. What is in none is
    /// left out. At most as many steps as there are slots.
    pub(crate) fn pieces(&self, at: u64, len: u64) -> impl Iterator<Item = Piece> {
        let end = at.saturating_add(len);
        let mut next = at;
        std::iter::from_fn(move || {
            while next < end {
                let Some((start, last, slot)) = self.slots.get(next) else {
                    next = self.slots.next_start(next).unwrap_or(end);
                    continue;
                };
                let piece_end = end.min(last.saturating_add(1));
                let piece = Piece {
                    at: next,
                    len: piece_end - next,
                    host: HostAddress(slot.host.0 + (next - start)),
                    kind: slot.kind,
                };
                next = piece_end;
                return Some(piece);
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_split_at_slots_and_holes() {
        let mut slots = Slots::default();
        slots.insert(GuestAddress(0x1000), 0x1000, HostAddress(0xa000), MemoryKind::Ram);
        slots.insert(GuestAddress(0x2000), 0x1000, HostAddress(0x5000), MemoryKind::Ram);
        slots.insert(
            GuestAddress(0x8000),
            0x4000,
            HostAddress(0x20000),
            MemoryKind::Device,
        );
        let found: Vec<_> = slots
            .pieces(0x1800, 0x7000)
            .map(|piece| (piece.at, piece.len, piece.host.0))
            .collect();
        assert_eq!(
            found,
            [
                (0x1800, 0x800, 0xa800),
                (0x2000, 0x1000, 0x5000),
                (0x8000, 0x800, 0x20000)
            ]
        );
    }
}

//! Guest memory that a device may reach.

use vm_memory::GuestAddress;

use crate::range_map::RangeMap;
use crate::region::HostAddress;

/// RAM and BARs, as pieces of the process that runs the guest.
#[derive(Default)]
pub(super) struct Slots {
    slots: RangeMap<HostAddress>,
}

/// A part of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: GuestAddress,
    pub(super) len_bytes: u64,
    pub(super) host: HostAddress,
}

impl Slots {
    /// False when the place is taken.
    pub(super) fn insert(&mut self, at: GuestAddress, len_bytes: u64, host: HostAddress) -> bool {
        self.slots.insert(at.0, len_bytes, host).is_ok()
    }

    /// Forgets the slot that begins at `at`.
    pub(super) fn remove(&mut self, at: GuestAddress) {
        self.slots.remove(at.0);
    }

    /// Bytes in all slots.
    pub(super) fn len_bytes(&self) -> u64 {
        self.all().map(|piece| piece.len_bytes).sum()
    }

    /// Each slot as one piece.
    pub(super) fn all(&self) -> impl Iterator<Item = Piece> {
        self.slots.iter().map(|(at, last, host)| Piece {
            at: GuestAddress(at),
            len_bytes: last - at + 1,
            host: *host,
        })
    }

    /// The parts of `len_bytes` at `at` that are in slots, split where one slot ends. What is in none is
    /// left out. At most as many steps as there are slots.
    pub(super) fn pieces(&self, at: GuestAddress, len_bytes: u64) -> impl Iterator<Item = Piece> {
        let end = at.0.saturating_add(len_bytes);
        let mut next = at.0;
        std::iter::from_fn(move || {
            while next < end {
                let Some((start, last, host)) = self.slots.get(next) else {
                    next = self.slots.next_start(next).unwrap_or(end);
                    continue;
                };
                let piece_end = end.min(last.saturating_add(1));
                let piece = Piece {
                    at: GuestAddress(next),
                    len_bytes: piece_end - next,
                    host: host.offset(next - start),
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
        slots.insert(GuestAddress(0x1000), 0x1000, HostAddress(0xa000));
        slots.insert(GuestAddress(0x2000), 0x1000, HostAddress(0x5000));
        slots.insert(GuestAddress(0x8000), 0x4000, HostAddress(0x20000));
        let found: Vec<_> = slots
            .pieces(GuestAddress(0x1800), 0x7000)
            .map(|piece| (piece.at.0, piece.len_bytes, piece.host.0))
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

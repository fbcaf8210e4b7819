//! What a domain of the host shall hold, as runs that are contiguous on both sides.

use std::ops::{ControlFlow, Range};

use super::slots::{Piece, Slots};
use super::table::Table;
use crate::dma::{Access, Iova};
use crate::iommu::vtd::memory::TableMemory;
use crate::iommu::vtd::spec::tables::{INTERRUPT_WINDOW, PAGE};
use crate::region::HostAddress;

/// Runs found in one sync at most; the host has room for 65,535 mappings by default.
const MAX_RUNS: usize = 1 << 18;

/// What a domain shall hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: every request is blocked.
    Nothing,
    /// The guest's memory at the guest's addresses.
    Identity,
    /// What a table of the guest maps.
    Table(Table),
}

/// The guest's side of a sync.
pub(super) struct Guest<'a> {
    pub(super) memory: &'a dyn TableMemory,
    pub(super) slots: &'a Slots,
}

/// A stretch that is contiguous on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) iova: Iova,
    pub(super) len_bytes: u64,
    pub(super) host: HostAddress,
    pub(super) access: Access,
    /// 4 KiB pages, which may be cut anywhere; others are one leaf or one slot.
    pub(super) small: bool,
}

impl Run {
    /// The first address behind it.
    pub(super) fn end(&self) -> Iova {
        self.iova.saturating_add(self.len_bytes)
    }

    /// The part between two addresses within it.
    pub(super) fn part(&self, start: Iova, end: Iova) -> Self {
        Self {
            iova: start,
            len_bytes: end.offset_from(start),
            host: self.host.offset(start.offset_from(self.iova)),
            ..*self
        }
    }

    /// Takes in `next` if it goes on where this one ends.
    fn absorb(&mut self, next: &Self) -> bool {
        let follows = self.end() == next.iova && self.host.checked_offset(self.len_bytes) == Some(next.host);
        let merges = self.small && next.small && follows && self.access == next.access;
        if merges {
            self.len_bytes += next.len_bytes;
        }
        merges
    }
}

/// Puts what is wanted in `range` into `runs`, ascending and clipped to it, for `budget` table entries at
/// most. Tells up to where it came; what lies behind is absent.
pub(super) fn collect(
    runs: &mut Vec<Run>,
    range: &Range<Iova>,
    wanted: Wanted,
    guest: &Guest<'_>,
    budget: &mut u64,
) -> Iova {
    runs.clear();
    match wanted {
        Wanted::Nothing => range.end,
        Wanted::Identity => {
            for piece in guest.slots.all() {
                push(runs, range, run(&piece, Iova(piece.at.0), Access::all(), false));
            }
            range.end
        }
        Wanted::Table(table) => collect_leaves(runs, range, &table, guest, budget),
    }
}

fn collect_leaves(
    runs: &mut Vec<Run>,
    range: &Range<Iova>,
    table: &Table,
    guest: &Guest<'_>,
    budget: &mut u64,
) -> Iova {
    // DMA to the interrupt window is an interrupt, whatever the table says.
    let below = range.start..range.end.min(Iova(INTERRUPT_WINDOW.start));
    let above = range.start.max(Iova(INTERRUPT_WINDOW.end))..range.end;
    table.walk(guest.memory, range, budget, &mut |leaf| {
        for piece in guest.slots.pieces(leaf.target, leaf.len_bytes) {
            let iova = Iova(leaf.iova.0 + (piece.at.0 - leaf.target.0));
            let run = run(&piece, iova, leaf.access, leaf.len_bytes == PAGE);
            push(runs, &below, run);
            push(runs, &above, run);
        }
        match runs.len() < MAX_RUNS {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })
}

fn run(piece: &Piece, iova: Iova, access: Access, small: bool) -> Run {
    Run {
        iova,
        len_bytes: piece.len_bytes,
        host: piece.host,
        access,
        small,
    }
}

fn push(runs: &mut Vec<Run>, range: &Range<Iova>, run: Run) {
    let (start, end) = (run.iova.max(range.start), run.end().min(range.end));
    if start >= end {
        return;
    }
    let run = run.part(start, end);
    if !runs.last_mut().is_some_and(|last| last.absorb(&run)) {
        runs.push(run);
    }
}

//! What a domain of the host shall hold, as runs that are contiguous on both sides.

use std::ops::{ControlFlow, Range};

use super::memory::{Slots, TableMemory};
use super::spec::tables::{INTERRUPT_WINDOW, PAGE};
use super::translate::Table;
use crate::dma::Access;
use crate::region::MemoryKind;

/// Runs found in one sync at most; the host has room for 65,535 mappings by default.
const MAX_RUNS: usize = 1 << 18;

/// What a domain shall hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Nothing,
    /// The guest's memory at the guest's addresses.
    Identity,
    /// What a table of the guest maps.
    Table(Table),
}

/// The guest's side of a sync.
pub(crate) struct Guest<'a> {
    pub(crate) memory: &'a dyn TableMemory,
    pub(crate) slots: &'a Slots,
    /// Map BARs too.
    pub(crate) peers: bool,
}

/// Contiguous on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) iova: u64,
    pub(crate) len: u64,
    pub(crate) host: u64,
    pub(crate) access: Access,
    /// 4 KiB pages, which may be cut anywhere; others are one leaf or one slot.
    pub(crate) small: bool,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.iova.saturating_add(self.len)
    }

    pub(crate) fn part(&self, start: u64, end: u64) -> Self {
        Self {
            iova: start,
            len: end - start,
            host: self.host + (start - self.iova),
            ..*self
        }
    }

    /// Takes in `next` if it goes on where this one ends.
    fn absorb(&mut self, next: &Self) -> bool {
        let follows = self.end() == next.iova && self.host.checked_add(self.len) == Some(next.host);
        let merges = self.small && next.small && follows && self.access == next.access;
        if merges {
            self.len += next.len;
        }
        merges
    }
}

/// Puts what is wanted in `range` into `runs`, ascending and clipped to it, for `budget` table entries at
/// most. Tells up to where it came; what lies behind is absent.
pub(crate) fn collect(
    runs: &mut Vec<Run>,
    range: &Range<u64>,
    wanted: Wanted,
    guest: &Guest<'_>,
    budget: &mut u64,
) -> u64 {
    runs.clear();
    match wanted {
        Wanted::Nothing => range.end,
        Wanted::Identity => {
            for piece in guest.slots.all().filter(|piece| guest.reaches(piece.kind)) {
                let run = Run {
                    iova: piece.at,
                    len: piece.len,
                    host: piece.host.0,
                    access: Access::all(),
                    small: false,
                };
                push(runs, range, run);
            }
            range.end
        }
        Wanted::Table(table) => collect_leaves(runs, range, &table, guest, budget),
    }
}

fn collect_leaves(
    runs: &mut Vec<Run>,
    range: &Range<u64>,
    table: &Table,
    guest: &Guest<'_>,
    budget: &mut u64,
) -> u64 {
    table.walk(guest.memory, range, budget, &mut |leaf| {
        for piece in guest.slots.pieces(leaf.target, leaf.len) {
            if guest.reaches(piece.kind) {
                let run = Run {
                    iova: leaf.iova + (piece.at - leaf.target),
                    len: piece.len,
                    host: piece.host.0,
                    access: leaf.access,
                    small: leaf.len == PAGE,
                };
                // DMA to the interrupt window is an interrupt, whatever the table says.
                push(runs, &(range.start..range.end.min(INTERRUPT_WINDOW.start)), run);
                push(runs, &(range.start.max(INTERRUPT_WINDOW.end)..range.end), run);
            }
        }
        match runs.len() < MAX_RUNS {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })
}

fn push(runs: &mut Vec<Run>, range: &Range<u64>, run: Run) {
    let (start, end) = (run.iova.max(range.start), run.end().min(range.end));
    if start >= end {
        return;
    }
    let run = run.part(start, end);
    if !runs.last_mut().is_some_and(|last| last.absorb(&run)) {
        runs.push(run);
    }
}

impl Guest<'_> {
    fn reaches(&self, kind: MemoryKind) -> bool {
        kind == MemoryKind::Ram || self.peers
    }
}

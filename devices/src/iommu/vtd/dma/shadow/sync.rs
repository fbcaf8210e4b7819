//! Bringing a domain to what is wanted, a part at a time.
//!
//! What a sync has left when a turn ends it goes on with in the next.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::book::{Book, ShadowStats};
use super::diff::{Deletion, find_changed, find_missing};
use crate::dma::{Domain, Iova};
use crate::iommu::vtd::dma::runs::{Guest, Run, Wanted, collect};
use crate::iommu::vtd::spec::tables::PAGE;
use crate::iommu::vtd::turn::{self, Turn};
use crate::region::HostAddress;

/// 4 KiB pages that are mapped together: at most this much, aligned. A guest may unmap them one by one.
const MERGE: u64 = 2 << 20;
/// Small pages that a full sync maps one by one. Above this many it merges as well, to spare entries.
const UNMERGED_PAGES: u64 = 4096;
/// Table entries that one sync reads at most in each of its two walks, its maps counted in: 128 GiB of 4 KiB pages,
/// a good part of a second.
const BUDGET: u64 = 1 << 25;
/// Table entries that a walk reads ahead of what is mapped for it: the next turn reads them again.
const READ_AHEAD: u64 = 1 << 16;
/// What one map costs, in table entries read.
const MAP_COST: u64 = 64;
/// What looking for the ends of a range costs, in table entries read.
const BEGIN_COST: u64 = 16;
/// How often a device may have the guest's memory mapped, at one address and another. Beyond it nobody gains, but
/// large pages that all lead to the same memory would keep the host busy for minutes, and fill its tables.
const MAX_ALIASES: u64 = 4;
/// What a small guest may have all the same.
const MIN_LIMIT_BYTES: u64 = 16 << 30;
/// Ranges kept for another try after a failure; more are one range from first to last.
const MAX_FAILED: usize = 64;
/// Refusals in one sync after which the host is asked no more.
const MAX_REFUSALS: u32 = 16;
/// Table entries read at most to try again what failed, each time that room was made.
const RETRY_BUDGET: u64 = 1 << 14;
/// Room kept for the next sync; a larger one gives it back.
const KEPT: usize = 1 << 12;
/// Rounds in which a range is widened to whole pages and whole mappings.
const WIDENINGS: usize = 4;

/// One domain of the host, and what is under way in it.
pub(in crate::iommu::vtd) struct Shadow {
    book: Book,
    /// What was refused, for another try when there is room.
    failed: Vec<Range<Iova>>,
    sync: Option<Sync>,
    /// Table entries that a walk may read; [`BUDGET`] but in tests.
    budget: u64,
    scratch: Scratch,
}

/// A range on its way to what is wanted: first all goes that is not, so that there is room, then all comes that is
/// missing.
struct Sync {
    range: Range<Iova>,
    /// Behind it nothing is wanted: the table maps more than can be followed.
    end: Iova,
    /// Up to where this walk is done.
    at: Iova,
    is_adding: bool,
    /// What was refused earlier is tried again.
    is_retry: bool,
    /// It met more small pages than are mapped one by one.
    merges: bool,
    has_freed: bool,
    /// When it first took away what was to stay.
    split_at: Option<Instant>,
    refusals: u32,
    /// Table entries that this walk may still read.
    budget: u64,
}

impl Sync {
    fn new(range: Range<Iova>, budget: u64) -> Self {
        Self {
            end: range.end,
            at: range.start,
            is_adding: false,
            is_retry: false,
            merges: false,
            has_freed: false,
            split_at: None,
            refusals: 0,
            budget,
            range,
        }
    }

    fn is_full(&self) -> bool {
        self.range == EVERYTHING
    }
}

/// What a sync works with, kept so that the next one allocates nothing.
#[derive(Default)]
struct Scratch {
    runs: Vec<Run>,
    missing: Vec<Run>,
    deletions: Vec<Deletion>,
}

/// All addresses that a device can issue.
pub(in crate::iommu::vtd) const EVERYTHING: Range<Iova> = Iova(0)..Iova(u64::MAX);

impl Shadow {
    pub(in crate::iommu::vtd) fn new(domain: Arc<dyn Domain>) -> Self {
        Self {
            book: Book::new(domain),
            failed: Vec::new(),
            sync: None,
            budget: BUDGET,
            scratch: Scratch::default(),
        }
    }

    pub(in crate::iommu::vtd) fn stats(&self) -> ShadowStats {
        self.book.stats
    }

    /// Has every sync read so few table entries.
    #[cfg(test)]
    pub(in crate::iommu::vtd) fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    /// Forgets what is under way.
    pub(in crate::iommu::vtd) fn abandon(&mut self) {
        self.sync = None;
    }

    /// Begins to bring `range` to what is wanted; nothing else is under way.
    pub(in crate::iommu::vtd) fn begin(
        &mut self,
        range: Range<Iova>,
        wanted: Wanted,
        guest: &Guest<'_>,
        turn: &mut Turn,
    ) {
        turn.pay_entries(BEGIN_COST);
        let range = self.widen(range, wanted, guest);
        self.failed.retain(|failed| !covers(&range, failed));
        let mut sync = Sync::new(range, self.budget);
        sync.is_adding = sync.is_full() && self.book.is_empty();
        self.sync = Some(sync);
    }

    /// Goes on with what is under way. When it is done, true, nothing in the range is mapped that is not wanted,
    /// unless the host itself refused to unmap it. Where the budget was used up, nothing is mapped.
    pub(in crate::iommu::vtd) fn go_on(
        &mut self,
        wanted: Wanted,
        guest: &Guest<'_>,
        turn: &mut Turn,
    ) -> bool {
        let mut scratch = mem::take(&mut self.scratch);
        while let Some(mut sync) = self.sync.take() {
            if !self.part(&mut sync, &mut scratch, wanted, guest, turn) {
                self.sync = Some(sync);
                break;
            }
            self.sync = self.next_after(sync);
        }
        scratch.runs.shrink_to(KEPT);
        scratch.missing.shrink_to(KEPT);
        scratch.deletions.shrink_to(KEPT);
        self.scratch = scratch;
        self.sync.is_none()
    }

    /// What one walk finds, of either kind of change, or both if it finds all. False when the turn is over.
    fn part(
        &mut self,
        sync: &mut Sync,
        scratch: &mut Scratch,
        wanted: Wanted,
        guest: &Guest<'_>,
        turn: &mut Turn,
    ) -> bool {
        if turn.is_over() {
            return false;
        }
        let walked = sync.at..sync.end;
        let ahead = if sync.is_adding { READ_AHEAD } else { turn::ENTRIES };
        let patience = ahead.min(sync.budget).min(turn.entries());
        let mut left = patience;
        let mut end = collect(&mut scratch.runs, &walked, wanted, guest, &mut left);
        sync.budget -= patience - left;
        turn.pay_entries(patience - left);
        if end < sync.end && sync.budget == 0 {
            self.cut_short(sync, end);
            end = if sync.is_adding { end } else { sync.range.end };
        }
        if sync.is_adding {
            return self.add_missing(sync, end, scratch, guest, turn);
        }
        let end = if end == sync.end { sync.range.end } else { end };
        if !self.remove_changed(sync, end, scratch, turn) {
            return false;
        }
        if sync.at < sync.range.end {
            return true;
        }
        sync.is_adding = true;
        sync.at = sync.range.start;
        sync.budget = self.budget;
        // Runs of a walk over all of it serve for both.
        walked.start > sync.range.start || self.add_missing(sync, sync.end, scratch, guest, turn)
    }

    fn cut_short(&mut self, sync: &mut Sync, end: Iova) {
        let rest = end..sync.end;
        sync.end = end;
        if !sync.is_retry {
            self.book.stats.short_walks += 1;
            self.book.warn(&"its table maps more than can be followed");
        }
        self.fail(rest);
    }

    /// The same sync while it has something left; then what was refused earlier, if room was made, until the host
    /// refuses again.
    fn next_after(&mut self, sync: Sync) -> Option<Sync> {
        if !sync.is_adding || sync.at < sync.end {
            return Some(sync);
        }
        if let Some(start) = sync.split_at {
            self.book.stats.split_latency.note(start.elapsed());
        }
        let budget = match sync.is_retry {
            true if sync.refusals > 0 => 0,
            true => sync.budget,
            false if sync.has_freed && !sync.is_full() => RETRY_BUDGET.min(self.budget),
            false => 0,
        };
        let range = (budget > 0).then(|| self.failed.pop()).flatten()?;
        let mut retry = Sync::new(self.book.widen(range), budget);
        (retry.is_adding, retry.is_retry) = (true, true);
        Some(retry)
    }

    /// Parts of `host` that are mapped anywhere, as ranges of device addresses.
    pub(in crate::iommu::vtd) fn users_of(&self, host: HostAddress, len_bytes: u64) -> Vec<Range<Iova>> {
        self.book.users_of(host, len_bytes)
    }

    /// Widens a range until it cuts neither a large page of the guest nor a mapping of the host.
    fn widen(&self, mut range: Range<Iova>, wanted: Wanted, guest: &Guest<'_>) -> Range<Iova> {
        if range == EVERYTHING {
            return range;
        }
        for _ in 0..WIDENINGS {
            range = widen_to_pages(range, wanted, guest);
            let whole = self.book.widen(range.clone());
            if whole == range {
                break;
            }
            range = whole;
        }
        range
    }

    /// Deletes what is not as the runs say, up to `end`; neighbours go in one call. False when the turn is over.
    fn remove_changed(&mut self, sync: &mut Sync, end: Iova, scratch: &mut Scratch, turn: &mut Turn) -> bool {
        let Scratch { runs, deletions, .. } = scratch;
        let end = find_changed(deletions, &self.book, runs, sync.at..end, sync.range.end);
        for deletion in deletions {
            if !turn.pay_call(deletion.bytes) {
                sync.at = deletion.range.start;
                return false;
            }
            sync.has_freed = true;
            if deletion.splits > 0 {
                self.book.stats.splits += deletion.splits;
                sync.split_at.get_or_insert_with(Instant::now);
            }
            self.book.unmap(&deletion.range);
        }
        // A mapping that the walk did not get past takes a fresh turn.
        let came_on = end > sync.at;
        sync.at = end;
        came_on
    }

    /// Maps what the runs have and the book has not, up to `end`. False when the turn is over.
    fn add_missing(
        &mut self,
        sync: &mut Sync,
        end: Iova,
        scratch: &mut Scratch,
        guest: &Guest<'_>,
        turn: &mut Turn,
    ) -> bool {
        // Only a walk that goes on may begin inside of a mapping.
        let covered = match sync.at == sync.range.start {
            true => sync.at,
            false => self.book.end_of_mapping_over(sync.at),
        };
        let Scratch { runs, missing, .. } = scratch;
        find_missing(missing, &self.book, runs, &(sync.at..end), covered);
        if missing.is_empty() {
            sync.at = end;
            return true;
        }
        let limit = MIN_LIMIT_BYTES.max(guest.slots.len_bytes().saturating_mul(MAX_ALIASES));
        sync.merges |= !sync.is_full() || small_pages(missing) > UNMERGED_PAGES;
        for run in missing {
            let granule = match run.small {
                true if sync.merges => MERGE,
                true => PAGE,
                false => turn::BYTES,
            };
            sync.at = run.iova;
            while sync.at < run.end() && sync.refusals < MAX_REFUSALS {
                let next = run.end().min(sync.at.align_down(granule).saturating_add(granule));
                if !turn.pay_call(next.offset_from(sync.at)) {
                    return false;
                }
                sync.budget = sync.budget.saturating_sub(MAP_COST);
                if !self.book.map(run.part(sync.at, next), limit) {
                    sync.refusals += 1;
                    break;
                }
                sync.at = next;
            }
            if sync.at < run.end() {
                self.fail(sync.at..run.end());
            }
        }
        sync.at = end;
        if sync.refusals >= MAX_REFUSALS && end < sync.end {
            self.fail(end..sync.end);
            sync.at = sync.end;
        }
        true
    }

    fn fail(&mut self, range: Range<Iova>) {
        if self.failed.len() >= MAX_FAILED {
            let start = self
                .failed
                .iter()
                .map(|range| range.start)
                .min()
                .unwrap_or(range.start);
            let end = self
                .failed
                .iter()
                .map(|range| range.end)
                .max()
                .unwrap_or(range.end);
            self.failed.clear();
            self.failed.push(start.min(range.start)..end.max(range.end));
        } else {
            self.failed.push(range);
        }
    }
}

/// Widens a range until its ends cut no large page of the guest.
fn widen_to_pages(mut range: Range<Iova>, wanted: Wanted, guest: &Guest<'_>) -> Range<Iova> {
    let Wanted::Table(table) = wanted else {
        return range;
    };
    let page_of = |at| table.lookup(guest.memory, at).ok();
    if let Some(first) = page_of(range.start) {
        range.start = range.start.min(first.iova);
        range.end = range.end.max(first.iova.saturating_add(first.len_bytes));
    }
    // The last page is looked for only where it is not the first.
    if range.end.offset_from(range.start) > PAGE
        && let Some(last) = page_of(Iova(range.end.0 - 1))
    {
        range.end = range.end.max(last.iova.saturating_add(last.len_bytes));
    }
    range
}

fn small_pages(runs: &[Run]) -> u64 {
    runs.iter()
        .filter(|run| run.small)
        .map(|run| run.len_bytes / PAGE)
        .sum()
}

fn covers(range: &Range<Iova>, other: &Range<Iova>) -> bool {
    range.start <= other.start && other.end <= range.end
}

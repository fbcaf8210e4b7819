//! The book of what is mapped in one domain of the host, and how it is brought to what the guest wants.
//!
//! A sync walks the guest's tables over a range, compares with the book, deletes what is gone and adds what
//! is new. What stayed the same is not touched: a page-selective invalidation may cover neighbours. The host
//! cannot split a mapping (type1v2), so one that lost a part goes whole and its rest is mapped again.
//!
//! What a sync has left when a turn ends it goes on with in the next.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::latency::Latency;
use super::runs::{Guest, Run, Wanted, collect};
use super::spec::tables::PAGE;
use super::turn::{self, Turn};
use crate::dma::{Access, Domain, Iova};
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

/// Numbers for those who measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowStats {
    /// Calls of [`Domain::map`].
    pub maps: u64,
    /// Calls of [`Domain::unmap_all`].
    pub unmaps: u64,
    /// Maps that the host refused, or that were beyond what a device may have.
    pub failed_maps: u64,
    /// Walks that ended before the guest's table did, which maps more than can be followed.
    pub short_walks: u64,
    /// Unmaps that the host refused.
    pub failed_unmaps: u64,
    /// Mappings taken away although a part of them was to stay.
    pub splits: u64,
    /// Mappings now.
    pub mappings: u64,
    /// Most mappings there ever were.
    pub most_mappings: u64,
    /// Bytes mapped now.
    pub bytes: u64,
    /// How long what was to stay was out of reach, each time that a mapping lost a part.
    pub split_latency: Latency,
    /// How long the maps took.
    pub map_latency: Latency,
    /// How long the unmaps took.
    pub unmap_latency: Latency,
}

/// One mapping that the host accepted.
#[derive(Clone, Copy)]
struct Issued {
    len: u64,
    host: u64,
    access: Access,
}

/// One domain of the host with its book.
pub(crate) struct Shadow {
    domain: Arc<dyn Domain>,
    issued: BTreeMap<u64, Issued>,
    failed: Vec<Range<u64>>,
    /// What is under way.
    sync: Option<Sync>,
    /// [`BUDGET`].
    budget: u64,
    warned: bool,
    stats: ShadowStats,
    scratch: Scratch,
}

/// A range on its way to what is wanted: first all goes that is not, so that there is room, then all comes that is
/// missing.
struct Sync {
    range: Range<u64>,
    /// Behind it nothing is wanted: the table maps more than can be followed.
    end: u64,
    /// Up to where this walk is done.
    at: u64,
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
    fn new(range: Range<u64>, budget: u64) -> Self {
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

/// Mappings that go in one call.
struct Deletion {
    range: Range<u64>,
    bytes: u64,
    splits: u64,
}

/// What a sync works with, kept so that the next one allocates nothing.
#[derive(Default)]
struct Scratch {
    runs: Vec<Run>,
    missing: Vec<Run>,
    deletions: Vec<Deletion>,
}

/// All addresses.
pub(crate) const EVERYTHING: Range<u64> = 0..u64::MAX;

impl Shadow {
    pub(crate) fn new(domain: Arc<dyn Domain>) -> Self {
        Self {
            domain,
            issued: BTreeMap::new(),
            failed: Vec::new(),
            sync: None,
            budget: BUDGET,
            warned: false,
            stats: ShadowStats::default(),
            scratch: Scratch::default(),
        }
    }

    pub(crate) fn stats(&self) -> ShadowStats {
        self.stats
    }

    /// Has every sync read so few table entries.
    #[cfg(test)]
    pub(super) fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    /// Forgets what is under way.
    pub(crate) fn abandon(&mut self) {
        self.sync = None;
    }

    /// Begins to bring `range` to what is wanted; nothing else is under way.
    pub(crate) fn begin(&mut self, range: Range<u64>, wanted: Wanted, guest: &Guest<'_>, turn: &mut Turn) {
        turn.pay_entries(BEGIN_COST);
        let range = self.widen(range, wanted, guest);
        self.failed.retain(|failed| !covers(&range, failed));
        let mut sync = Sync::new(range, self.budget);
        sync.is_adding = sync.is_full() && self.issued.is_empty();
        self.sync = Some(sync);
    }

    /// Goes on with what is under way. When it is done, true, nothing in the range is mapped that is not wanted,
    /// unless the host itself refused to unmap it. Where the budget was used up, nothing is mapped.
    pub(crate) fn go_on(&mut self, wanted: Wanted, guest: &Guest<'_>, turn: &mut Turn) -> bool {
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

    fn cut_short(&mut self, sync: &mut Sync, end: u64) {
        let rest = end..sync.end;
        sync.end = end;
        if !sync.is_retry {
            self.stats.short_walks += 1;
            self.warn(&"its table maps more than can be followed");
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
            self.stats.split_latency.note(start.elapsed());
        }
        let budget = match sync.is_retry {
            true if sync.refusals > 0 => 0,
            true => sync.budget,
            false if sync.has_freed && !sync.is_full() => RETRY_BUDGET.min(self.budget),
            false => 0,
        };
        let range = (budget > 0).then(|| self.failed.pop()).flatten()?;
        let mut retry = Sync::new(self.widen_to_mappings(range), budget);
        (retry.is_adding, retry.is_retry) = (true, true);
        Some(retry)
    }

    /// Parts of `host` that are mapped anywhere, as ranges of device addresses.
    pub(crate) fn users_of(&self, host: HostAddress, len: u64) -> Vec<Range<u64>> {
        let touches = |issued: &Issued| issued.host < host.0 + len && host.0 < issued.host + issued.len;
        self.issued
            .iter()
            .filter(|(_, issued)| touches(issued))
            .map(|(iova, issued)| *iova..iova + issued.len)
            .collect()
    }

    /// Widens a range until it cuts neither a large page of the guest nor a mapping of the host.
    fn widen(&self, mut range: Range<u64>, wanted: Wanted, guest: &Guest<'_>) -> Range<u64> {
        if range == EVERYTHING {
            return range;
        }
        for _ in 0..WIDENINGS {
            range = widen_to_pages(range, wanted, guest);
            let whole = self.widen_to_mappings(range.clone());
            if whole == range {
                break;
            }
            range = whole;
        }
        range
    }

    fn widen_to_mappings(&self, range: Range<u64>) -> Range<u64> {
        let first = self.issued.range(..range.start).next_back();
        let start = first
            .filter(|(iova, issued)| **iova + issued.len > range.start)
            .map_or(range.start, |(iova, _)| *iova);
        let last = self.issued.range(..range.end).next_back();
        let end = last.map_or(range.end, |(iova, issued)| range.end.max(iova + issued.len));
        start..end
    }

    /// Where a mapping that reaches over `at` ends; `at` if none does.
    fn end_of_mapping_over(&self, at: u64) -> u64 {
        let before = self.issued.range(..at).next_back();
        before.map_or(at, |(iova, issued)| at.max(iova + issued.len))
    }

    /// Deletes what is not as the runs say, up to `end`; neighbours go in one call. False when the turn is over.
    fn remove_changed(&mut self, sync: &mut Sync, end: u64, scratch: &mut Scratch, turn: &mut Turn) -> bool {
        let end = self.find_changed(sync.at..end, sync.range.end, scratch);
        for deletion in &scratch.deletions {
            if !turn.pay_call(deletion.bytes) {
                sync.at = deletion.range.start;
                return false;
            }
            sync.has_freed = true;
            if deletion.splits > 0 {
                self.stats.splits += deletion.splits;
                sync.split_at.get_or_insert_with(Instant::now);
            }
            self.delete(&deletion.range);
        }
        // A mapping that the walk did not get past takes a fresh turn.
        let came_on = end > sync.at;
        sync.at = end;
        came_on
    }

    /// Looks for mappings in `walked` that are not as the runs say. Tells up to where: a mapping over the end of
    /// the walk is left, unless nothing is behind it.
    fn find_changed(&self, walked: Range<u64>, last: u64, scratch: &mut Scratch) -> u64 {
        let Scratch { runs, deletions, .. } = scratch;
        deletions.clear();
        let mut extends = false;
        let mut at = 0;
        for (&iova, issued) in self.issued.range(walked.clone()) {
            if iova + issued.len > walked.end && walked.end < last {
                return iova;
            }
            while runs.get(at).is_some_and(|run| run.end() <= iova) {
                at += 1;
            }
            let splits = match compare(iova, issued, &runs[at..]) {
                Overlap::Same => {
                    extends = false;
                    continue;
                }
                Overlap::Part => 1,
                Overlap::None => 0,
            };
            let fits = |whole: &&mut Deletion| extends && whole.bytes + issued.len <= turn::BYTES;
            match deletions.last_mut().filter(fits) {
                Some(whole) => {
                    whole.range.end = iova + issued.len;
                    whole.bytes += issued.len;
                    whole.splits += splits;
                }
                None => deletions.push(Deletion {
                    range: iova..iova + issued.len,
                    bytes: issued.len,
                    splits,
                }),
            }
            extends = true;
        }
        walked.end
    }

    /// Deletes all mappings in a range that cuts none.
    fn delete(&mut self, whole: &Range<u64>) {
        self.stats.unmaps += 1;
        let start = Instant::now();
        let outcome = self.domain.unmap_all(Iova(whole.start), whole.end - whole.start);
        self.stats.unmap_latency.note(start.elapsed());
        match outcome {
            Ok(()) => {
                while let Some((&start, issued)) = self.issued.range(whole.clone()).next() {
                    self.stats.bytes -= issued.len;
                    self.stats.mappings -= 1;
                    self.issued.remove(&start);
                }
            }
            Err(error) => {
                self.stats.failed_unmaps += 1;
                // The guest can make the host fail again and again.
                if self.stats.failed_unmaps == 1 {
                    log::error!(
                        "Device addresses {:#x} to {:#x} may stay reachable by DMA: {error}; further failures \
                         are only counted",
                        whole.start,
                        whole.end
                    );
                }
            }
        }
    }

    /// Maps what the runs have and the book has not, up to `end`. False when the turn is over.
    fn add_missing(
        &mut self,
        sync: &mut Sync,
        end: u64,
        scratch: &mut Scratch,
        guest: &Guest<'_>,
        turn: &mut Turn,
    ) -> bool {
        // Only a walk that goes on may begin inside of a mapping.
        let covered = match sync.at == sync.range.start {
            true => sync.at,
            false => self.end_of_mapping_over(sync.at),
        };
        self.find_missing(&(sync.at..end), covered, scratch);
        if scratch.missing.is_empty() {
            sync.at = end;
            return true;
        }
        let limit = MIN_LIMIT_BYTES.max(guest.slots.len_bytes().saturating_mul(MAX_ALIASES));
        sync.merges |= !sync.is_full() || small_pages(&scratch.missing) > UNMERGED_PAGES;
        for run in &scratch.missing {
            let granule = match run.small {
                true if sync.merges => MERGE,
                true => PAGE,
                false => turn::BYTES,
            };
            sync.at = run.iova;
            while sync.at < run.end() && sync.refusals < MAX_REFUSALS {
                let next = run.end().min((sync.at / granule + 1) * granule);
                if !turn.pay_call(next - sync.at) {
                    return false;
                }
                sync.budget = sync.budget.saturating_sub(MAP_COST);
                if !self.add(run.part(sync.at, next), limit) {
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

    /// The parts of runs from `covered` on where nothing is mapped.
    fn find_missing(&self, range: &Range<u64>, covered: u64, scratch: &mut Scratch) {
        let Scratch { runs, missing, .. } = scratch;
        missing.clear();
        let mut mapped = self.issued.range(range.clone()).peekable();
        for run in runs {
            let mut at = run.iova.max(covered);
            while let Some((&start, issued)) = mapped.peek().copied() {
                if start >= run.end() {
                    break;
                }
                if start > at {
                    missing.push(run.part(at, start));
                }
                let end = start + issued.len;
                at = at.max(end);
                if end > run.end() {
                    break;
                }
                mapped.next();
            }
            if at < run.end() {
                missing.push(run.part(at, run.end()));
            }
        }
    }

    fn add(&mut self, run: Run, limit: u64) -> bool {
        if self.stats.bytes.saturating_add(run.len) > limit {
            self.stats.failed_maps += 1;
            self.warn(&"the guest's memory is mapped too many times over");
            return false;
        }
        self.stats.maps += 1;
        let start = Instant::now();
        let (iova, host) = (Iova(run.iova), HostAddress(run.host));
        let outcome = self.domain.map(iova, host, run.len, run.access);
        self.stats.map_latency.note(start.elapsed());
        match outcome {
            Ok(()) => {
                let (len, host, access) = (run.len, run.host, run.access);
                self.issued.insert(run.iova, Issued { len, host, access });
                self.stats.bytes += len;
                self.stats.mappings += 1;
                self.stats.most_mappings = self.stats.most_mappings.max(self.stats.mappings);
                true
            }
            Err(error) => {
                self.stats.failed_maps += 1;
                self.warn(&error);
                false
            }
        }
    }

    /// Once: the guest can repeat it.
    fn warn(&mut self, why: &dyn Display) {
        if !mem::replace(&mut self.warned, true) {
            log::warn!("A range the guest maps stays out of its device's reach: {why}");
        }
    }

    fn fail(&mut self, range: Range<u64>) {
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
fn widen_to_pages(mut range: Range<u64>, wanted: Wanted, guest: &Guest<'_>) -> Range<u64> {
    let Wanted::Table(table) = wanted else {
        return range;
    };
    let page_of = |at| table.lookup(guest.memory, Iova(at)).ok();
    if let Some(first) = page_of(range.start) {
        range.start = range.start.min(first.iova);
        range.end = range.end.max(first.iova + first.len);
    }
    // The last page is looked for only where it is not the first.
    if range.end - range.start > PAGE
        && let Some(last) = page_of(range.end - 1)
    {
        range.end = range.end.max(last.iova + last.len);
    }
    range
}

fn small_pages(runs: &[Run]) -> u64 {
    runs.iter()
        .filter(|run| run.small)
        .map(|run| run.len / PAGE)
        .sum()
}

/// How a mapping relates to what is wanted in its place.
enum Overlap {
    Same,
    Part,
    None,
}

/// Compares a mapping with `runs`, the first of which ends behind its start.
fn compare(iova: u64, issued: &Issued, runs: &[Run]) -> Overlap {
    let (mut at, end) = (iova, iova + issued.len);
    let mut any = false;
    for run in runs.iter().take_while(|run| run.iova < end) {
        let start = run.iova.max(iova);
        let same = issued.access == run.access
            && issued.host.checked_add(start - iova) == run.host.checked_add(start - run.iova);
        any |= same;
        if !same || start > at {
            return if any { Overlap::Part } else { Overlap::None };
        }
        at = run.end();
    }
    match (at >= end, any) {
        (true, _) => Overlap::Same,
        (false, true) => Overlap::Part,
        (false, false) => Overlap::None,
    }
}

fn covers(range: &Range<u64>, other: &Range<u64>) -> bool {
    range.start <= other.start && other.end <= range.end
}

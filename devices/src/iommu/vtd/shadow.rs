//! The book of what is mapped in one domain of the host, and how it is brought to what the guest wants.
//!
//! A sync walks the guest's tables over a range, compares with the book, deletes what is gone and adds what
//! is new. What stayed the same is not touched: a page-selective invalidation may cover neighbours. The host
//! cannot split a mapping (type1v2), so one that lost a part goes whole and its rest is mapped again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::latency::Latency;
use super::runs::{Guest, Run, Wanted, collect};
use super::spec::tables::PAGE;
use crate::dma::{Access, Domain, Iova};
use crate::region::HostAddress;

/// 4 KiB pages that are mapped together: at most this much, aligned. A guest may unmap them one by one.
const MERGE: u64 = 2 << 20;
/// Small pages that a full sync maps one by one. Above this many it merges as well, to spare entries.
const UNMERGED_PAGES: u64 = 4096;
/// What a device may cost between two calls of [`Shadow::renew`], in table entries read: 128 GiB of 4 KiB
/// pages, a good part of a second. A ring has room for thousands of waits with everything invalidated before
/// each, and the guest's CPU, which is this thread, can be stopped only when all of them are done.
const BUDGET: u64 = 1 << 25;
/// What one call of the domain costs.
const CALL: u64 = 64;
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
    /// What is left of [`BUDGET`].
    budget: u64,
    warned: bool,
    stats: ShadowStats,
    scratch: Scratch,
}

/// What a sync works with, kept so that the next one allocates nothing.
#[derive(Default)]
struct Scratch {
    runs: Vec<Run>,
    missing: Vec<Run>,
    deletions: Vec<Range<u64>>,
}

/// All addresses.
pub(crate) const EVERYTHING: Range<u64> = 0..u64::MAX;

impl Shadow {
    pub(crate) fn new(domain: Arc<dyn Domain>) -> Self {
        Self {
            domain,
            issued: BTreeMap::new(),
            failed: Vec::new(),
            budget: BUDGET,
            warned: false,
            stats: ShadowStats::default(),
            scratch: Scratch::default(),
        }
    }

    pub(crate) fn stats(&self) -> ShadowStats {
        self.stats
    }

    /// The guest asks for something new.
    pub(crate) fn renew(&mut self) {
        self.budget = BUDGET;
    }

    /// Brings `range` to what is wanted. When it returns, nothing in the range is mapped that is not wanted,
    /// unless the host itself refused to unmap it. Once the budget is used up, nothing in it is mapped.
    pub(crate) fn sync(&mut self, range: Range<u64>, wanted: Wanted, guest: &Guest<'_>) {
        let is_full = range == EVERYTHING;
        let range = self.widen(range, wanted, guest);
        let mut scratch = mem::take(&mut self.scratch);
        let end = collect(&mut scratch.runs, &range, wanted, guest, &mut self.budget);
        let freed = self.remove_changed(&range, &mut scratch);
        self.failed.retain(|failed| !covers(&range, failed));
        if end < range.end {
            self.stats.short_walks += 1;
            self.warn(&"its table maps more than can be followed");
            self.fail(end..range.end);
        }
        self.add_missing(&range, &mut scratch, guest, is_full);
        if freed && !self.failed.is_empty() && !is_full {
            self.retry(wanted, guest, &mut scratch);
        }
        scratch.runs.shrink_to(KEPT);
        scratch.missing.shrink_to(KEPT);
        scratch.deletions.shrink_to(KEPT);
        self.scratch = scratch;
    }

    /// Something was done that costs as much as reading so many table entries.
    pub(crate) fn spend(&mut self, cost: u64) {
        self.budget = self.budget.saturating_sub(cost);
    }

    /// Room was made: try again what the host refused earlier, until it refuses again.
    fn retry(&mut self, wanted: Wanted, guest: &Guest<'_>, scratch: &mut Scratch) {
        let mut budget = RETRY_BUDGET.min(self.budget);
        self.spend(budget);
        while budget > 0
            && let Some(range) = self.failed.pop()
        {
            let range = self.widen_to_mappings(range);
            let end = collect(&mut scratch.runs, &range, wanted, guest, &mut budget);
            if end < range.end {
                self.failed.push(end..range.end);
            }
            if !self.add_missing(&(range.start..end), scratch, guest, false) {
                break;
            }
        }
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

    /// Deletes what is not as the runs say; neighbours go in one call. True if anything was deleted.
    fn remove_changed(&mut self, range: &Range<u64>, scratch: &mut Scratch) -> bool {
        let Scratch { runs, deletions, .. } = scratch;
        deletions.clear();
        let mut extends = false;
        let mut at = 0;
        for (&iova, issued) in self.issued.range(range.clone()) {
            while runs.get(at).is_some_and(|run| run.end() <= iova) {
                at += 1;
            }
            match compare(iova, issued, &runs[at..]) {
                Overlap::Same => {
                    extends = false;
                    continue;
                }
                Overlap::Part => self.stats.splits += 1,
                Overlap::None => {}
            }
            match deletions.last_mut().filter(|_| extends) {
                Some(whole) => whole.end = iova + issued.len,
                None => deletions.push(iova..iova + issued.len),
            }
            extends = true;
        }
        for whole in deletions.iter() {
            self.delete(whole);
        }
        !deletions.is_empty()
    }

    /// Deletes all mappings in a range that cuts none.
    fn delete(&mut self, whole: &Range<u64>) {
        self.stats.unmaps += 1;
        self.spend(CALL);
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

    /// Maps what the runs have and the book has not. False if the host refused anything.
    fn add_missing(
        &mut self,
        range: &Range<u64>,
        scratch: &mut Scratch,
        guest: &Guest<'_>,
        is_full: bool,
    ) -> bool {
        self.find_missing(range, scratch);
        let missing = &scratch.missing;
        if missing.is_empty() {
            return true;
        }
        let limit = MIN_LIMIT_BYTES.max(guest.slots.len_bytes().saturating_mul(MAX_ALIASES));
        let small_pages: u64 = missing
            .iter()
            .filter(|run| run.small)
            .map(|run| run.len / PAGE)
            .sum();
        let granule = if is_full && small_pages <= UNMERGED_PAGES {
            PAGE
        } else {
            MERGE
        };
        let mut refusals = 0;
        for run in missing {
            let mut at = run.iova;
            while at < run.end() && refusals < MAX_REFUSALS {
                let end = match run.small {
                    true => run.end().min((at / granule + 1) * granule),
                    false => run.end(),
                };
                if !self.add(run.part(at, end), limit) {
                    refusals += 1;
                    break;
                }
                at = end;
            }
            if at < run.end() {
                self.fail(at..run.end());
            }
        }
        refusals == 0
    }

    /// The parts of runs where nothing is mapped.
    fn find_missing(&self, range: &Range<u64>, scratch: &mut Scratch) {
        let Scratch { runs, missing, .. } = scratch;
        missing.clear();
        let mut mapped = self.issued.range(range.clone()).peekable();
        for run in runs {
            let mut at = run.iova;
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
        self.spend(CALL);
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

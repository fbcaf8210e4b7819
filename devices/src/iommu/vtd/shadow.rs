//! The book of what is mapped in one domain of the host, and how it is brought to what the guest wants.
//!
//! A sync walks the guest's tables over a range, compares with the book, deletes what is gone and adds what
//! is new. What stayed the same is not touched: a page-selective invalidation may cover neighbours. The host
//! cannot split a mapping (type1v2), so one that lost a part goes whole and its rest is mapped again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::runs::{Guest, Run, Wanted, collect};
use super::spec::tables::PAGE;
use crate::dma::{Access, Domain, Iova};
use crate::region::HostAddress;

/// 4 KiB pages that are mapped together: at most this much, aligned. A guest may unmap them one by one.
const MERGE: u64 = 2 << 20;
/// Small pages that a full sync maps one by one. Above this many it merges as well, to spare entries.
const UNMERGED_PAGES: u64 = 4096;
/// Ranges kept for another try after a failure; more are one range from first to last.
const MAX_FAILED: usize = 64;
/// Refusals in one sync after which the host is asked no more.
const MAX_REFUSALS: u32 = 16;
/// Rounds in which a range is widened to whole pages and whole mappings.
const WIDENINGS: usize = 4;

/// Numbers for those who measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowStats {
    /// Calls of [`Domain::map`].
    pub maps: u64,
    /// Calls of [`Domain::unmap_all`].
    pub unmaps: u64,
    /// Maps that the host refused.
    pub failed_maps: u64,
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
    warned: bool,
    stats: ShadowStats,
}

/// All addresses.
pub(crate) const EVERYTHING: Range<u64> = 0..u64::MAX;

impl Shadow {
    pub(crate) fn new(domain: Arc<dyn Domain>) -> Self {
        Self {
            domain,
            issued: BTreeMap::new(),
            failed: Vec::new(),
            warned: false,
            stats: ShadowStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> ShadowStats {
        self.stats
    }

    /// Brings `range` to what is wanted. When it returns, nothing in the range is mapped that is not wanted,
    /// unless the host itself refused to unmap it.
    pub(crate) fn sync(&mut self, range: Range<u64>, wanted: Wanted, guest: &Guest<'_>) {
        let is_full = range == EVERYTHING;
        let range = self.widen(range, wanted, guest);
        let runs = collect(&range, wanted, guest);
        let freed = self.remove_changed(&range, &runs);
        self.failed.retain(|failed| !covers(&range, failed));
        self.add_missing(&range, &runs, is_full);
        if freed && !self.failed.is_empty() && !is_full {
            self.retry(wanted, guest);
        }
    }

    /// Room was made: try again what the host refused earlier.
    fn retry(&mut self, wanted: Wanted, guest: &Guest<'_>) {
        for range in std::mem::take(&mut self.failed) {
            let range = self.widen_to_mappings(range);
            let runs = collect(&range, wanted, guest);
            self.add_missing(&range, &runs, false);
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
            let before = range.clone();
            if let Wanted::Table(table) = wanted {
                for at in [range.start, range.end - 1] {
                    if let Ok(leaf) = table.lookup(guest.memory, Iova(at)) {
                        range.start = range.start.min(leaf.iova);
                        range.end = range.end.max(leaf.iova + leaf.len);
                    }
                }
            }
            range = self.widen_to_mappings(range);
            if range == before {
                break;
            }
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
    fn remove_changed(&mut self, range: &Range<u64>, runs: &[Run]) -> bool {
        let mut deletions: Vec<(Range<u64>, Vec<u64>)> = Vec::new();
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
                Some((whole, starts)) => {
                    whole.end = iova + issued.len;
                    starts.push(iova);
                }
                None => deletions.push((iova..iova + issued.len, vec![iova])),
            }
            extends = true;
        }
        for (whole, starts) in &deletions {
            self.delete(whole, starts);
        }
        !deletions.is_empty()
    }

    fn delete(&mut self, whole: &Range<u64>, starts: &[u64]) {
        self.stats.unmaps += 1;
        match self.domain.unmap_all(Iova(whole.start), whole.end - whole.start) {
            Ok(()) => {
                for start in starts {
                    let len = self.issued.remove(start).map_or(0, |issued| issued.len);
                    self.stats.bytes -= len;
                    self.stats.mappings -= 1;
                }
            }
            Err(error) => {
                self.stats.failed_unmaps += 1;
                log::error!(
                    "Device addresses {:#x} to {:#x} may stay reachable by DMA: {error}",
                    whole.start,
                    whole.end
                );
            }
        }
    }

    /// Maps what the runs have and the book has not.
    fn add_missing(&mut self, range: &Range<u64>, runs: &[Run], is_full: bool) {
        let missing = self.missing(range, runs);
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
                if !self.add(run.part(at, end)) {
                    refusals += 1;
                    break;
                }
                at = end;
            }
            if at < run.end() {
                self.fail(at..run.end());
            }
        }
    }

    /// The parts of runs where nothing is mapped.
    fn missing(&self, range: &Range<u64>, runs: &[Run]) -> Vec<Run> {
        let mut missing = Vec::new();
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
        missing
    }

    fn add(&mut self, run: Run) -> bool {
        self.stats.maps += 1;
        match self
            .domain
            .map(Iova(run.iova), HostAddress(run.host), run.len, run.access)
        {
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
                if !std::mem::replace(&mut self.warned, true) {
                    log::warn!("A range the guest maps stays out of its device's reach: {error}");
                }
                false
            }
        }
    }

    fn fail(&mut self, range: Range<u64>) {
        if self.failed.len() == MAX_FAILED {
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

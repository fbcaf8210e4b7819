//! How what is mapped differs from what is wanted.

use std::ops::Range;

use super::book::{Book, Issued};
use crate::dma::Iova;
use crate::iommu::vtd::dma::runs::Run;
use crate::iommu::vtd::turn;

/// Mappings that go in one call.
pub(super) struct Deletion {
    pub(super) range: Range<Iova>,
    pub(super) bytes: u64,
    /// Those of which a part is wanted.
    pub(super) splits: u64,
}

/// Looks for mappings in `walked` that are not as the runs say; neighbours become one deletion. Tells up to where: a
/// mapping over the end of the walk is left, unless nothing is behind it.
pub(super) fn find_changed(
    deletions: &mut Vec<Deletion>,
    book: &Book,
    runs: &[Run],
    walked: Range<Iova>,
    last: Iova,
) -> Iova {
    deletions.clear();
    let mut extends = false;
    let mut at = 0;
    for (iova, issued) in book.within(walked.clone()) {
        if issued.end(iova) > walked.end && walked.end < last {
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
        let fits = |whole: &&mut Deletion| extends && whole.bytes + issued.len_bytes <= turn::BYTES;
        match deletions.last_mut().filter(fits) {
            Some(whole) => {
                whole.range.end = issued.end(iova);
                whole.bytes += issued.len_bytes;
                whole.splits += splits;
            }
            None => deletions.push(Deletion {
                range: iova..issued.end(iova),
                bytes: issued.len_bytes,
                splits,
            }),
        }
        extends = true;
    }
    walked.end
}

/// The parts of runs from `covered` on where nothing is mapped.
pub(super) fn find_missing(
    missing: &mut Vec<Run>,
    book: &Book,
    runs: &[Run],
    range: &Range<Iova>,
    covered: Iova,
) {
    missing.clear();
    let mut mapped = book.within(range.clone()).peekable();
    for run in runs {
        let mut at = run.iova.max(covered);
        while let Some((start, issued)) = mapped.peek().copied() {
            if start >= run.end() {
                break;
            }
            if start > at {
                missing.push(run.part(at, start));
            }
            let end = issued.end(start);
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

/// How a mapping relates to what is wanted in its place.
enum Overlap {
    Same,
    Part,
    None,
}

/// Compares a mapping with `runs`, the first of which ends behind its start.
fn compare(iova: Iova, issued: &Issued, runs: &[Run]) -> Overlap {
    let (mut at, end) = (iova, issued.end(iova));
    let mut any = false;
    for run in runs.iter().take_while(|run| run.iova < end) {
        let start = run.iova.max(iova);
        let stands_at = |host: crate::region::HostAddress, from| host.checked_offset(start.offset_from(from));
        let same =
            issued.access == run.access && stands_at(issued.host, iova) == stands_at(run.host, run.iova);
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

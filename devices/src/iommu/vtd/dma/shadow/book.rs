//! The book: mappings that the host accepted, and the calls that make and take them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::dma::{Access, Domain, Iova};
use crate::iommu::vtd::dma::latency::Latency;
use crate::iommu::vtd::dma::runs::Run;
use crate::region::HostAddress;
use crate::warning::FirstOnly;

/// Numbers for those who measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowStats {
    /// How often [`Domain::map`] was called.
    pub maps: u64,
    /// How often [`Domain::unmap_all`] was called.
    pub unmaps: u64,
    /// Maps that the host refused, or that were beyond what a device may have.
    pub failed_maps: u64,
    /// Walks that ended before the guest's table did, which maps more than can be followed.
    pub short_walks: u64,
    /// Unmaps that the host refused.
    pub failed_unmaps: u64,
    /// Mappings taken away although a part of them was to stay.
    pub splits: u64,
    /// Mappings that the domain has now.
    pub mappings: u64,
    /// Most mappings there ever were.
    pub most_mappings: u64,
    /// Bytes that are mapped now.
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
pub(super) struct Issued {
    pub(super) len_bytes: u64,
    pub(super) host: HostAddress,
    pub(super) access: Access,
}

impl Issued {
    /// Where it ends, if it begins at `start`.
    pub(super) fn end(&self, start: Iova) -> Iova {
        start.saturating_add(self.len_bytes)
    }
}

/// A domain of the host, with what is mapped in it.
pub(super) struct Book {
    domain: Arc<dyn Domain>,
    issued: BTreeMap<Iova, Issued>,
    failed: FirstOnly,
    pub(super) stats: ShadowStats,
}

impl Book {
    /// `domain`, in which nothing is mapped.
    pub(super) fn new(domain: Arc<dyn Domain>) -> Self {
        Self {
            domain,
            issued: BTreeMap::new(),
            failed: FirstOnly::default(),
            stats: ShadowStats::default(),
        }
    }

    /// True when nothing is mapped.
    pub(super) fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }

    /// Mappings that begin in `range`, ascending.
    pub(super) fn within(&self, range: Range<Iova>) -> impl DoubleEndedIterator<Item = (Iova, &Issued)> {
        self.issued.range(range).map(|(iova, issued)| (*iova, issued))
    }

    /// Parts of `host` that are mapped anywhere, as ranges of device addresses.
    pub(super) fn users_of(&self, host: HostAddress, len_bytes: u64) -> Vec<Range<Iova>> {
        let touches = |issued: &Issued| {
            issued.host < host.offset(len_bytes) && host < issued.host.offset(issued.len_bytes)
        };
        let users = self.issued.iter().filter(|(_, issued)| touches(issued));
        users.map(|(iova, issued)| *iova..issued.end(*iova)).collect()
    }

    /// The range, widened until its ends cut no mapping.
    pub(super) fn widen(&self, range: Range<Iova>) -> Range<Iova> {
        let first = self.within(Iova(0)..range.start).next_back();
        let start = first
            .filter(|(iova, issued)| issued.end(*iova) > range.start)
            .map_or(range.start, |(iova, _)| iova);
        let last = self.within(Iova(0)..range.end).next_back();
        let end = last.map_or(range.end, |(iova, issued)| range.end.max(issued.end(iova)));
        start..end
    }

    /// Where a mapping that reaches over `at` ends; `at` if none does.
    pub(super) fn end_of_mapping_over(&self, at: Iova) -> Iova {
        let before = self.within(Iova(0)..at).next_back();
        before.map_or(at, |(iova, issued)| at.max(issued.end(iova)))
    }

    /// Maps a run, unless more than `limit_bytes` would be mapped then. False when it is not mapped.
    pub(super) fn map(&mut self, run: Run, limit_bytes: u64) -> bool {
        if self.stats.bytes.saturating_add(run.len_bytes) > limit_bytes {
            self.stats.failed_maps += 1;
            self.warn(&"the guest's memory is mapped too many times over");
            return false;
        }
        self.stats.maps += 1;
        let start = Instant::now();
        let outcome = self.domain.map(run.iova, run.host, run.len_bytes, run.access);
        self.stats.map_latency.note(start.elapsed());
        match outcome {
            Ok(()) => {
                let Run {
                    len_bytes,
                    host,
                    access,
                    ..
                } = run;
                let issued = Issued {
                    len_bytes,
                    host,
                    access,
                };
                self.issued.insert(run.iova, issued);
                self.stats.bytes += len_bytes;
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

    /// Takes away all mappings in a range that cuts none.
    pub(super) fn unmap(&mut self, whole: &Range<Iova>) {
        self.stats.unmaps += 1;
        let start = Instant::now();
        let outcome = self
            .domain
            .unmap_all(whole.start, whole.end.offset_from(whole.start));
        self.stats.unmap_latency.note(start.elapsed());
        match outcome {
            Ok(()) => {
                while let Some((&start, issued)) = self.issued.range(whole.clone()).next() {
                    self.stats.bytes -= issued.len_bytes;
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
                        whole.start.0,
                        whole.end.0
                    );
                }
            }
        }
    }

    /// Says once that not all is mapped that the guest maps: the guest can repeat it.
    pub(super) fn warn(&mut self, why: &dyn Display) {
        if self.failed.pass() {
            log::warn!("A range the guest maps stays out of its device's reach: {why}");
        }
    }
}

//! A passed device behind the unit.

use std::ops::Range;
use std::sync::Arc;

use super::runs::Wanted;
use super::shadow::{EVERYTHING, Shadow, ShadowStats};
use crate::dma::{Domain, Iova, Requester, RequesterId};

/// What becomes of a device's requests (VT-d §3.4, the translation type of its context entry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// They are blocked: it is no bus master yet, or has no context entry.
    Blocked,
    /// They go to the guest's memory at its own addresses.
    PassThrough,
    /// They go where the guest maps in its domain of this number.
    Domain(u16),
}

/// Numbers of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStats {
    /// What its requests carry now.
    pub requester: RequesterId,
    /// What becomes of its requests now.
    pub translation: Translation,
    /// What its domain on the host was asked for.
    pub shadow: ShadowStats,
}

/// A passed device: who it is, and its domain on the host.
pub(super) struct Endpoint {
    pub(super) requester: Requester,
    pub(super) shadow: Shadow,
    /// The hardware may issue DMA. Without it no memory is pinned for untranslated requests.
    pub(super) is_master: bool,
    pub(super) wanted: Wanted,
    /// Whose context entry that is. It is another's when the guest gives the bus a new number.
    pub(super) resolved_as: RequesterId,
    /// The guest's number of the domain, as of the last look at the context entry.
    pub(super) domain_id: u16,
    /// Ranges to bring to what is wanted, the next one last.
    pub(super) stale: Vec<Range<Iova>>,
    /// Its number among those that came while the machine ran, from 1 on; 0 where it was there from the start.
    pub(super) came: u64,
    /// It left the machine, and its domain with it.
    pub(super) is_gone: bool,
}

impl Endpoint {
    pub(super) fn new(requester: Requester, domain: Arc<dyn Domain>) -> Self {
        Self {
            resolved_as: requester.id(),
            requester,
            shadow: Shadow::new(domain),
            is_master: false,
            wanted: Wanted::Nothing,
            domain_id: 0,
            stale: Vec::new(),
            came: 0,
            is_gone: false,
        }
    }

    pub(super) fn stats(&self) -> DeviceStats {
        DeviceStats {
            requester: self.requester.id(),
            translation: match self.wanted {
                Wanted::Nothing => Translation::Blocked,
                Wanted::Identity => Translation::PassThrough,
                Wanted::Table(_) => Translation::Domain(self.domain_id),
            },
            shadow: self.shadow.stats(),
        }
    }

    /// All of it must be looked at; what is under way is overtaken.
    pub(super) fn note_everything(&mut self) {
        self.shadow.abandon();
        self.stale.clear();
        self.stale.push(EVERYTHING);
    }

    /// What untranslated requests may reach. The map is made when it is first needed, and kept.
    pub(super) fn identity(&self) -> Wanted {
        match self.is_master || self.wanted == Wanted::Identity {
            true => Wanted::Identity,
            false => Wanted::Nothing,
        }
    }
}

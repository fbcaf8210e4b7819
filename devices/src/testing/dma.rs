//! A fake of what a device reaches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::dma::{Access, Domain, DomainError, Iova};
use crate::range_map::RangeMap;
use crate::region::HostAddress;

/// One mapping of a [`FakeDomain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeDmaMapping {
    /// Where the device sees it.
    pub iova: Iova,
    /// What it reaches.
    pub host: HostAddress,
    /// How much.
    pub len_bytes: u64,
    /// How.
    pub access: Access,
}

/// A domain with the rules of a type1v2 container: no overlap, no split.
#[derive(Default)]
pub struct FakeDomain {
    mappings: Mutex<RangeMap<FakeDmaMapping>>,
    calls: Mutex<Vec<DmaCall>>,
    refused: AtomicBool,
    stuck: AtomicBool,
    /// Mappings that fit, if there is a limit.
    limit: Mutex<Option<usize>>,
}

impl FakeDomain {
    /// An empty domain.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Has room for `limit` mappings from now on.
    pub fn set_limit(&self, limit: usize) {
        *lock(&self.limit) = Some(limit);
    }

    /// Refuses (`true`) or accepts what comes.
    pub fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// Refuses (`true`) or accepts to unmap.
    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Takes the calls since the last time.
    pub fn take_calls(&self) -> Vec<DmaCall> {
        std::mem::take(&mut lock(&self.calls))
    }

    /// What is mapped now, by ascending address.
    pub fn mappings(&self) -> Vec<FakeDmaMapping> {
        lock(&self.mappings)
            .iter()
            .map(|(_, _, mapping)| *mapping)
            .collect()
    }
}

impl Domain for FakeDomain {
    fn map(&self, iova: Iova, host: HostAddress, len_bytes: u64, access: Access) -> Result<(), DomainError> {
        if self.refused.load(Ordering::Relaxed) {
            return Err("the domain refuses to map".into());
        }
        let mapping = FakeDmaMapping {
            iova,
            host,
            len_bytes,
            access,
        };
        let mut mappings = lock(&self.mappings);
        if lock(&self.limit).is_some_and(|limit| mappings.iter().count() >= limit) {
            return Err("the domain is full".into());
        }
        mappings
            .insert(iova.0, len_bytes, mapping)
            .map_err(|_| "the range is taken")?;
        lock(&self.calls).push(DmaCall::Map(iova.0, len_bytes));
        Ok(())
    }

    fn unmap(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        let mut mappings = lock(&self.mappings);
        match mappings.get(iova.0) {
            Some((start, _, mapping)) if start == iova.0 && mapping.len_bytes == len_bytes => {
                mappings.remove(start);
                Ok(())
            }
            _ => Err("no such mapping".into()),
        }
    }

    fn unmap_all(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err("the domain refuses to unmap".into());
        }
        let end = iova.0 + len_bytes;
        let mut mappings = lock(&self.mappings);
        let touched: Vec<_> = mappings
            .iter()
            .filter(|(start, last, _)| *start < end && iova.0 <= *last)
            .map(|(start, last, _)| (start, last))
            .collect();
        if touched
            .iter()
            .any(|(start, last)| *start < iova.0 || *last >= end)
        {
            return Err("the range cuts a mapping".into());
        }
        lock(&self.calls).push(DmaCall::Unmap(iova.0, len_bytes));
        for (start, _) in touched {
            mappings.remove(start);
        }
        Ok(())
    }
}

/// A call of a [`FakeDomain`] that was accepted: address and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaCall {
    /// `map`.
    Map(u64, u64),
    /// `unmap_all`.
    Unmap(u64, u64),
}

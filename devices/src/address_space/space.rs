//! One of the two spaces: which region answers where.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::range_map::RangeMap;
use crate::region::Effect;
use crate::region::Region;

/// Regions by address. The lock is held for the time of a look-up, never while a device works.
#[derive(Default)]
pub(super) struct Space(RwLock<RangeMap<Arc<Region>>>);

impl Space {
    /// Puts `region` at `start`; false, and nothing changed, when something is there or it does not fit.
    pub(super) fn claim(&self, start: u64, region: &Arc<Region>) -> bool {
        let (len_bytes, region) = (region.len_bytes(), region.clone());
        self.lock_mut().insert(start, len_bytes, region).is_ok()
    }

    /// Takes `region` away, if it is the one at `start`.
    pub(super) fn release(&self, start: u64, region: &Arc<Region>) {
        if self.holds(start, region) {
            self.lock_mut().remove(start);
        }
    }

    /// Takes every region out of the space.
    pub(super) fn clear(&self) {
        *self.lock_mut() = RangeMap::new();
    }

    /// True when `region` is the one that starts at `start`.
    pub(super) fn holds(&self, start: u64, region: &Arc<Region>) -> bool {
        let map = self.lock();
        map.get(start)
            .is_some_and(|(found, _, there)| found == start && Arc::ptr_eq(there, region))
    }

    /// Where `region` starts, however often it is there.
    pub(super) fn places_of(&self, region: &Arc<Region>) -> Vec<u64> {
        let mut all = self.all();
        all.retain(|(_, other)| Arc::ptr_eq(other, region));
        all.into_iter().map(|(start, _)| start).collect()
    }

    /// Every region with its start, in ascending order.
    pub(super) fn all(&self) -> Vec<(u64, Arc<Region>)> {
        let map = self.lock();
        map.iter()
            .map(|(start, _, region)| (start, region.clone()))
            .collect()
    }

    /// Who answers at `address`, and the offset there.
    pub(super) fn at(&self, address: u64) -> Option<(Arc<Region>, u64)> {
        self.find(address, 1).map(|(region, offset, _)| (region, offset))
    }

    /// Reads at `address`; what nobody answers, and bytes past the region's end, are ones.
    pub(super) fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((region, offset, inside)) = self.find(address, data.len()) {
            region.read(offset, &mut data[..inside]);
        }
    }

    /// Writes at `address`; bytes past the region's end are dropped.
    pub(super) fn write(&self, address: u64, data: &[u8]) -> Effect {
        match self.find(address, data.len()) {
            Some((region, offset, inside)) => region.write(offset, &data[..inside]),
            None => Effect::None,
        }
    }

    /// Finds who answers at `address`, the offset there, and how many bytes lie inside the region.
    fn find(&self, address: u64, len: usize) -> Option<(Arc<Region>, u64, usize)> {
        let map = self.lock();
        let (start, last, region) = map.get(address)?;
        let inside = (last - address).saturating_add(1).min(len as u64) as usize;
        Some((region.clone(), address - start, inside))
    }

    fn lock(&self) -> RwLockReadGuard<'_, RangeMap<Arc<Region>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mut(&self) -> RwLockWriteGuard<'_, RangeMap<Arc<Region>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

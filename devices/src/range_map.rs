//! The one "address to thing" structure: sorted ranges that never overlap.

/// Values at disjoint half-open ranges of `u64`.
#[derive(Clone, Debug)]
pub struct RangeMap<T> {
    /// Sorted by start, none over another.
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    start: u64,
    /// Inclusive, so that a range may end at the top of the space.
    last: u64,
    value: T,
}

/// A range that cannot be inserted: it is empty, wraps around, or overlaps one that is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Occupied;

impl<T> RangeMap<T> {
    /// A map without a range.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds `len` addresses from `start`.
    ///
    /// # Errors
    /// [`Occupied`] when the range is empty, wraps or overlaps; the map is unchanged.
    pub fn insert(&mut self, start: u64, len: u64, value: T) -> Result<(), Occupied> {
        let last = len
            .checked_sub(1)
            .and_then(|l| start.checked_add(l))
            .ok_or(Occupied)?;
        if self.overlaps(start, last) {
            return Err(Occupied);
        }
        let at = self.entries.partition_point(|entry| entry.start < start);
        self.entries.insert(at, Entry { start, last, value });
        Ok(())
    }

    /// Takes out the range that starts exactly at `start`.
    pub fn remove(&mut self, start: u64) -> Option<T> {
        let at = self
            .entries
            .binary_search_by_key(&start, |entry| entry.start)
            .ok()?;
        Some(self.entries.remove(at).value)
    }

    /// The range that holds `address`: its start, its last address, its value.
    pub fn get(&self, address: u64) -> Option<(u64, u64, &T)> {
        let at = self
            .entries
            .partition_point(|entry| entry.start <= address)
            .checked_sub(1)?;
        let entry = &self.entries[at];
        (address <= entry.last).then_some((entry.start, entry.last, &entry.value))
    }

    /// Where the first range above `address` starts.
    pub fn next_start(&self, address: u64) -> Option<u64> {
        let at = self.entries.partition_point(|entry| entry.start <= address);
        self.entries.get(at).map(|entry| entry.start)
    }

    /// All ranges in ascending order, as start, last address and value.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        self.entries
            .iter()
            .map(|entry| (entry.start, entry.last, &entry.value))
    }

    /// True when any address of `start..=last` is taken.
    pub fn overlaps(&self, start: u64, last: u64) -> bool {
        let after = self.entries.partition_point(|entry| entry.start <= last);
        after > 0 && self.entries[after - 1].last >= start
    }
}

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_range_that_holds_an_address() {
        let mut map = RangeMap::new();
        map.insert(0x1000, 0x1000, 'a').expect("free");
        map.insert(0x3000, 0x10, 'b').expect("free");
        assert_eq!(map.get(0x1fff), Some((0x1000, 0x1fff, &'a')));
        assert_eq!(map.get(0x2000), None);
        assert_eq!(map.get(0x3000), Some((0x3000, 0x300f, &'b')));
        assert_eq!(map.get(0x0fff), None);
    }

    #[test]
    fn reaches_the_top_of_the_space() {
        let mut map = RangeMap::new();
        map.insert(u64::MAX, 1, ()).expect("the last address is free");
        assert_eq!(map.insert(u64::MAX, 2, ()), Err(Occupied));
        assert_eq!(map.insert(5, 0, ()), Err(Occupied));
        assert!(map.get(u64::MAX).is_some());
    }

    proptest! {
        #[test]
        fn agrees_with_a_table_of_single_addresses(
            ops in prop::collection::vec((any::<bool>(), 0u64..64, 1u64..16), 1..60)
        ) {
            let mut map = RangeMap::new();
            let mut table: Vec<Option<u64>> = vec![None; 96];
            for (insert, start, len) in ops {
                if insert {
                    let range = start as usize..(start + len) as usize;
                    let free = table[range.clone()].iter().all(Option::is_none);
                    prop_assert_eq!(map.insert(start, len, start).is_ok(), free);
                    if free { table[range].fill(Some(start)); }
                } else if map.remove(start).is_some() {
                    for cell in &mut table { if *cell == Some(start) { *cell = None; } }
                }
                for (address, cell) in table.iter().enumerate() {
                    prop_assert_eq!(map.get(address as u64).map(|(_, _, v)| *v), *cell);
                }
            }
        }
    }
}

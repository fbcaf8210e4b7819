//! What was counted of a run, by histogram and key, and the most frequent keys of several runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Counts by key, for each histogram.
#[derive(Debug, Clone, Default)]
pub struct Counts(BTreeMap<String, BTreeMap<String, u64>>);

impl Counts {
    /// Takes histograms by name.
    pub fn new(histograms: impl Iterator<Item = (String, BTreeMap<String, u64>)>) -> Self {
        Self(histograms.collect())
    }

    /// All of a histogram.
    pub fn total(&self, histogram: &str) -> u64 {
        self.keys(histogram).map(|(_, count)| count).sum()
    }

    /// One key of a histogram.
    pub fn of(&self, histogram: &str, wanted: &str) -> u64 {
        let mut keys = self.keys(histogram);
        keys.find(|(key, _)| *key == wanted).map_or(0, |(_, count)| count)
    }

    /// The keys of a histogram that are hexadecimal numbers in `range`.
    pub fn within(&self, histogram: &str, range: &Range<u64>) -> u64 {
        let inside = |key: &str| u64::from_str_radix(key, 16).is_ok_and(|key| range.contains(&key));
        self.keys(histogram)
            .filter(|(key, _)| inside(key))
            .map(|(_, count)| count)
            .sum()
    }

    /// ioctls by the low half of their number, which is type and number of the request.
    pub fn ioctls(&self, low: u64) -> u64 {
        let is_it = |key: &str| key.parse::<u64>().is_ok_and(|key| key & 0xffff == low);
        self.keys("ioctls")
            .filter(|(key, _)| is_it(key))
            .map(|(_, count)| count)
            .sum()
    }

    fn keys(&self, histogram: &str) -> impl Iterator<Item = (&str, u64)> {
        let keys = self.0.get(histogram).into_iter().flatten();
        keys.map(|(key, count)| (key.as_str(), *count))
    }
}

/// Every key that was counted in a histogram, the most frequent first.
pub(super) fn all_keys<'a>(rounds: impl Iterator<Item = &'a Counts> + Clone, histogram: &str) -> Vec<String> {
    let keys: BTreeSet<&str> = rounds
        .clone()
        .flat_map(|counts| counts.keys(histogram))
        .map(|(key, _)| key)
        .collect();
    let weight = |key: &str| rounds.clone().map(|counts| counts.of(histogram, key)).max();
    let mut keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    keys.sort_by_key(|key| std::cmp::Reverse(weight(key)));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_key_by_range_and_by_request() {
        let keys = |keys: &[(&str, u64)]| {
            keys.iter()
                .map(|(key, count)| ((*key).to_owned(), *count))
                .collect()
        };
        let histograms = [
            ("ioctls".to_owned(), keys(&[("1074310774", 3), ("44672", 5)])),
            ("mappings".to_owned(), keys(&[("0", 1), ("c0000000", 2)])),
        ];
        let counts = Counts::new(histograms.into_iter());
        assert_eq!(counts.ioctls(0xae76), 3);
        assert_eq!((counts.total("ioctls"), counts.of("ioctls", "44672")), (8, 5));
        assert_eq!(counts.within("mappings", &(0..0x2000_0000)), 1);
    }
}

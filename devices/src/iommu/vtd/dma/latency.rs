//! How long calls of the host take, as a histogram: cheap enough to be always on.

use std::time::Duration;

/// The last one is for everything longer: half a second.
const BUCKETS: usize = 21;

/// How many calls took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    counts: [u64; BUCKETS],
}

impl Latency {
    /// Counts a call that took so long.
    pub(crate) fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
    }

    /// Upper ends in microseconds, powers of two, with the calls that took less but not less than the one
    /// before; `None` is for all that took longer. Without those that no call fell into.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let ends = (0..BUCKETS).map(|bucket| (bucket < BUCKETS - 1).then_some(1 << bucket));
        ends.zip(self.counts).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_falls_below_its_power_of_two() {
        let mut latency = Latency::default();
        for nanos in [0, 999, 1000, 1999, 2000, 4_000_000, u64::MAX] {
            latency.note(Duration::from_nanos(nanos));
        }
        let expected = [
            (Some(1), 2),
            (Some(2), 2),
            (Some(4), 1),
            (Some(4096), 1),
            (None, 1),
        ];
        assert_eq!(latency.buckets().collect::<Vec<_>>(), expected);
    }
}

//! Rounds drawn again from rounds, always in the same way: a report made twice of one run is the same report.

/// Where every sequence starts. Any number would do.
const SEED: u64 = 0x5712_A170_BE5C_4000;

/// A sequence of numbers that look random: SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new() -> Self {
        Self(SEED)
    }

    /// As many values as there are, each any of them.
    pub(super) fn resample(&mut self, values: &[f64]) -> Vec<f64> {
        values.iter().map(|_| values[self.below(values.len())]).collect()
    }

    /// A number below `limit`. The upper half of a product is as good as even for a few dozen rounds.
    fn below(&mut self, limit: usize) -> usize {
        let product = u128::from(self.next()) * limit as u128;
        (product >> 64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_algorithm() {
        // The first of seed 1234567, as in the tables that implementations are checked with.
        assert_eq!(Draws(1_234_567).next(), 6_457_827_717_110_365_317);
    }

    #[test]
    fn draws_repeat_and_reach_every_value() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let mut first = Draws::new();
        let mut again = Draws::new();
        let drawn: Vec<f64> = (0..20).flat_map(|_| first.resample(&values)).collect();
        let repeated: Vec<f64> = (0..20).flat_map(|_| again.resample(&values)).collect();
        assert_eq!(drawn, repeated);
        assert!(values.iter().all(|value| drawn.contains(value)));
    }
}

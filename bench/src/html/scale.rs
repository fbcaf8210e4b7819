//! From values to places in a picture.

/// Places for the values from one to another, in per cent; what is outside stands at the edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
}

/// Room on either side, in per cent: a dot at the end, or half of a label, must fit.
const EDGE: f64 = 4.0;

/// How many steps are marked, or a few less.
const STEPS: f64 = 4.0;

impl Scale {
    /// Between these two, which may be one value: that stands in the middle.
    pub(super) fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// From the least to the greatest of some values; `None` where there are none.
    pub(super) fn over(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let low = values.clone().reduce(f64::min)?;
        let high = values.reduce(f64::max)?;
        Some(Self::new(low, high))
    }

    /// Where a value stands.
    pub(super) fn place(self, value: f64) -> f64 {
        if self.low == self.high {
            return 50.0;
        }
        // By halves: the difference of two numbers may be beyond numbers.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        EDGE + (100.0 - 2.0 * EDGE) * part.clamp(0.0, 1.0)
    }

    /// Round values within, to be marked: multiples of 1, 2 or 5 and a power of ten.
    pub(super) fn marks(self) -> Vec<f64> {
        if self.low == self.high {
            return vec![self.low];
        }
        let rough = (self.high - self.low) / STEPS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= rough);
        let Some(step) = step.filter(|step| step.is_normal()) else {
            return vec![self.low, self.high];
        };
        let first = (self.low / step).ceil();
        (0..=STEPS as u32)
            .map(|index| (first + f64::from(index)) * step)
            .take_while(|mark| *mark <= self.high)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_stand_inside_the_edges() {
        let scale = Scale::new(2.0, 4.0);
        assert_eq!(
            [2.0, 3.0, 4.0, 9.0].map(|value| scale.place(value)),
            [4.0, 50.0, 96.0, 96.0]
        );
    }

    #[test]
    fn one_value_stands_in_the_middle() {
        let scale = Scale::over([7.0, 7.0].into_iter()).expect("values");
        assert_eq!((scale.place(7.0), scale.marks()), (50.0, vec![7.0]));
        assert_eq!(Scale::over(std::iter::empty()), None);
    }

    #[test]
    fn marks_are_round_and_within() {
        assert_eq!(Scale::new(0.0, 100.0).marks(), [0.0, 50.0, 100.0]);
        assert_eq!(Scale::new(0.0, 9.0).marks(), [0.0, 5.0]);
        assert_eq!(Scale::new(1.0, 1.7).marks().len(), 4);
    }

    #[test]
    fn values_at_the_end_of_numbers_are_shown_too() {
        let scale = Scale::new(-f64::MAX, f64::MAX);
        assert_eq!(scale.place(0.0), 50.0);
        assert_eq!(scale.marks().len(), 2);
        assert!(Scale::new(1e300, 1.1e300).marks().len() <= 6);
    }
}

//! Better, worse, the same, or nobody knows.

use serde::Serialize;

use super::interval::{Interval, ratio};
use super::median::median;

/// Ratios this near to 1 are the same for whoever decides by them.
const SAME: f64 = 0.02;

/// What can be said of a figure beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval of the ratio is on the good side of 1.
    Better,
    /// The whole interval is within 2 % of 1.
    Same,
    /// The whole interval is on the bad side of 1.
    Worse,
    /// The interval holds 1 and more than what is the same, or there are too few rounds for one.
    CannotTell,
}

impl Verdict {
    /// Of `new` beside `old`.
    pub fn of(new: &[f64], old: &[f64], lower_is_better: bool) -> Self {
        match ratio(new, old) {
            Some((_, Some(interval))) => Self::by(interval, lower_is_better),
            Some((_, None)) => Self::CannotTell,
            None => Self::beside_nothing(new, old, lower_is_better),
        }
    }

    fn by(interval: Interval, lower_is_better: bool) -> Self {
        let Interval { low, high } = interval;
        if low >= 1.0 - SAME && high <= 1.0 + SAME {
            Self::Same
        } else if high < 1.0 {
            Self::moved(true, lower_is_better)
        } else if low > 1.0 {
            Self::moved(false, lower_is_better)
        } else {
            Self::CannotTell
        }
    }

    /// Beside what was 0 in every round there is no ratio, yet a difference.
    fn beside_nothing(new: &[f64], old: &[f64], lower_is_better: bool) -> Self {
        let is_zero = |rounds: &[f64]| rounds.len() > 1 && rounds.iter().all(|value| *value == 0.0);
        if !is_zero(old) || median(new).is_none() {
            Self::CannotTell
        } else if is_zero(new) {
            Self::Same
        } else if new.len() > 1 && new.iter().all(|value| *value > 0.0) {
            Self::moved(false, lower_is_better)
        } else {
            Self::CannotTell
        }
    }

    fn moved(is_lower: bool, lower_is_better: bool) -> Self {
        if is_lower == lower_is_better {
            Self::Better
        } else {
            Self::Worse
        }
    }

    /// The verdict as a reader of the table has it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "worse",
            Self::CannotTell => "cannot tell",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [f64; 6] = [10.0, 10.1, 9.9, 10.0, 10.05, 9.95];

    #[test]
    fn which_side_is_good_depends_on_the_figure() {
        let half = OLD.map(|value| value / 2.0);
        assert_eq!(Verdict::of(&half, &OLD, true), Verdict::Better);
        assert_eq!(Verdict::of(&half, &OLD, false), Verdict::Worse);
        assert_eq!(Verdict::of(&OLD, &half, true), Verdict::Worse);
    }

    #[test]
    fn near_enough_is_the_same() {
        let near = OLD.map(|value| value * 1.001);
        assert_eq!(Verdict::of(&near, &OLD, true), Verdict::Same);
    }

    #[test]
    fn noise_and_few_rounds_cannot_tell() {
        let noise = [5.0, 15.0, 7.0, 13.0, 9.0, 12.0];
        assert_eq!(Verdict::of(&noise, &OLD, true), Verdict::CannotTell);
        assert_eq!(Verdict::of(&[1.0], &OLD, true), Verdict::CannotTell);
        assert_eq!(Verdict::of(&[1.0], &[2.0], true), Verdict::CannotTell);
        assert_eq!(Verdict::of(&[], &OLD, true), Verdict::CannotTell);
    }

    #[test]
    fn beside_none_some_is_worse_and_none_is_the_same() {
        assert_eq!(Verdict::of(&[3.0, 4.0], &[0.0, 0.0], true), Verdict::Worse);
        assert_eq!(Verdict::of(&[0.0, 0.0], &[0.0, 0.0], true), Verdict::Same);
        assert_eq!(Verdict::of(&[0.0, 1.0], &[0.0, 0.0], true), Verdict::CannotTell);
    }
}

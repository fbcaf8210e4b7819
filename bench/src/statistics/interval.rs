//! How far the truth may be from the median that was seen: the bootstrap's percentiles (Efron 1979).

use super::median::median;
use super::resample::Draws;

/// How often rounds are drawn again.
const RESAMPLES: usize = 4000;

/// Fewest rounds that can say anything with 95 %: all rounds of `n` lie on one side of the true median once in
/// `2^(n-1)`, which is below 5 % from 6 rounds on. With fewer, an interval would promise what no method can keep.
const FEWEST_ROUNDS: usize = 6;

/// Where the true median lies, by 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end, in the unit of the figures.
    pub low: f64,
    /// The upper end, in the same unit.
    pub high: f64,
}

/// The interval of the median of `rounds`, where there are enough of them. A figure that every round repeats is
/// taken to be exact from the second round on: counts of calls are such.
pub fn interval(rounds: &[f64]) -> Option<Interval> {
    let mut draws = Draws::new();
    resampled(&[rounds], || median(&draws.resample(rounds)))
}

/// The ratio of the medians of two and its interval; `None` where the lower one is 0 or was not measured.
pub fn ratio(upper: &[f64], lower: &[f64]) -> Option<(f64, Option<Interval>)> {
    let divide = |upper: &[f64], lower: &[f64]| {
        let ratio = median(upper)? / median(lower)?;
        ratio.is_finite().then_some(ratio)
    };
    let seen = divide(upper, lower)?;
    let mut draws = Draws::new();
    let interval = resampled(&[upper, lower], || {
        divide(&draws.resample(upper), &draws.resample(lower))
    });
    Some((seen, interval))
}

/// The middle 95 % of what `draw` makes.
fn resampled(samples: &[&[f64]], draw: impl FnMut() -> Option<f64>) -> Option<Interval> {
    if !samples.iter().all(|rounds| says_enough(rounds)) {
        return None;
    }
    let mut drawn: Vec<f64> = std::iter::repeat_with(draw)
        .take(RESAMPLES)
        .collect::<Option<_>>()?;
    drawn.sort_by(f64::total_cmp);
    Some(Interval {
        low: drawn[RESAMPLES / 40],
        high: drawn[RESAMPLES - 1 - RESAMPLES / 40],
    })
}

fn says_enough(rounds: &[f64]) -> bool {
    let is_exact = rounds.len() > 1 && rounds.windows(2).all(|pair| pair[0] == pair[1]);
    rounds.len() >= FEWEST_ROUNDS || is_exact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_rounds_have_this_interval() {
        let rounds = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        let found = interval(&rounds).expect("enough rounds");
        assert_eq!((found.low, found.high), (3.0, 8.0));
        assert_eq!(median(&rounds), Some(5.5));
    }

    #[test]
    fn five_rounds_that_differ_promise_nothing() {
        assert_eq!(interval(&[1.0, 2.0, 3.0, 4.0, 5.0]), None);
        assert_eq!(interval(&[1.0]), None);
    }

    #[test]
    fn a_count_that_repeats_is_exact() {
        let exact = Interval { low: 7.0, high: 7.0 };
        assert_eq!(interval(&[7.0, 7.0]), Some(exact));
        let half = Interval { low: 0.5, high: 0.5 };
        assert_eq!(ratio(&[7.0, 7.0], &[14.0, 14.0, 14.0]), Some((0.5, Some(half))));
    }

    #[test]
    fn no_ratio_to_nothing() {
        assert_eq!(ratio(&[1.0], &[0.0]), None);
        assert_eq!(ratio(&[0.0], &[0.0]), None);
        assert_eq!(ratio(&[1.0], &[]), None);
    }
}

//! Numbers as people read them.

use std::borrow::Cow;

use crate::report::{Asked, Metric};
use crate::statistics::Interval;

/// A figure with as many digits as it is worth: all of a count, three or so of what was timed.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        format!("{value:.0}")
    } else if !(0.001..1e15).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// Where the true value lies, ` [0.48, 0.53]`. What every round repeats has no interval to show.
pub(crate) fn bounds(interval: Option<Interval>) -> String {
    match interval {
        Some(Interval { low, high }) if low < high => format!(" [{}, {}]", number(low), number(high)),
        _ => String::new(),
    }
}

/// The title with its unit.
pub(crate) fn heading(metric: &Metric) -> Cow<'_, str> {
    if metric.unit.is_empty() {
        Cow::Borrowed(&metric.title)
    } else {
        Cow::Owned(format!("{}, {}", metric.title, metric.unit))
    }
}

/// What was asked of Strait, and whether it is so.
pub(crate) fn asked(metric: &Metric, baseline: &str) -> Option<String> {
    let asked = match metric.asked? {
        Asked::AtMost(limit) => format!("at most {}", number(limit)),
        Asked::RatioAtMost(limit) => format!("at most {} of {baseline}'s", number(limit)),
        Asked::RatioAtLeast(limit) => format!("at least {} of {baseline}'s", number(limit)),
    };
    Some(match metric.is_met(baseline) {
        Some(true) => format!("asked: {asked}: met"),
        Some(false) => format!("asked: {asked}: MISSED"),
        None => format!("asked: {asked}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_all_its_digits_and_a_time_three() {
        let shown = [3.0, 123_456.0, 0.514_3, 12.345, 1234.5, 0.012_3, 1e-6].map(number);
        assert_eq!(
            shown,
            ["3", "123456", "0.51", "12.3", "1234", "0.0123", "1.00e-6"]
        );
    }

    #[test]
    fn what_repeats_has_no_interval_to_show() {
        let exact = Interval { low: 2.0, high: 2.0 };
        let wide = Interval { low: 2.0, high: 2.5 };
        assert_eq!(bounds(Some(exact)), "");
        assert_eq!(bounds(Some(wide)), " [2, 2.50]");
    }
}

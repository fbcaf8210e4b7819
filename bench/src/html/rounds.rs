//! The picture of rounds: a dot for each, a line at their median, a wider one over its interval.

use super::picture::{LINE, MIDDLE};
use super::scale::Scale;
use super::svg::Svg;
use crate::report::Metric;
use crate::statistics::{Interval, interval, median};
use crate::words::{heading, number};

/// The scale that all VMMs of a metric have in common.
pub(super) fn scale(metric: &Metric) -> Option<Scale> {
    Scale::over(metric.rounds.values().flatten().copied())
}

/// A dot for each round of one VMM, on the scale of all.
pub(super) fn dots(metric: &Metric, vmm: &str, scale: Scale) -> String {
    let rounds = metric.of(vmm);
    let Some(middle) = median(rounds) else {
        return Svg::new(LINE, "no rounds").finish();
    };
    let shown: Vec<String> = rounds.iter().map(|value| number(*value)).collect();
    let words = format!("{}, rounds of {vmm}: {}", heading(metric), shown.join(" "));
    let mut svg = Svg::new(LINE, &words);
    svg.across("grid", [0.0, 100.0], MIDDLE);
    if let Some(Interval { low, high }) = interval(rounds) {
        svg.across("interval", [scale.place(low), scale.place(high)], MIDDLE);
    }
    svg.down("median", scale.place(middle), [2, LINE - 2]);
    for value in rounds {
        svg.dot("round", scale.place(*value), MIDDLE);
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    #[test]
    fn every_round_is_a_dot_on_one_scale_with_the_others() {
        let mut metric = Metric::new("a.b", "a", "s", Better::Lower);
        [1.0, 2.0].iter().for_each(|value| metric.add("strait", *value));
        [3.0, 2.0, 3.0]
            .iter()
            .for_each(|value| metric.add("qemu", *value));
        let scale = scale(&metric).expect("rounds");
        let strait = dots(&metric, "strait", scale);
        let qemu = dots(&metric, "qemu", scale);
        assert_eq!(strait.matches("<circle").count(), 2);
        assert_eq!(qemu.matches("<circle").count(), 3);
        assert!(
            strait.contains(r#"cx="4.00%""#) && qemu.contains(r#"cx="96.00%""#),
            "{strait} {qemu}"
        );
        assert!(qemu.contains("a, s, rounds of qemu: 3 2 3"), "{qemu}");
    }
}

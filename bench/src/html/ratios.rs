//! The picture of ratios to the baseline: a bar from 1 to the ratio, and a line over its interval.

use super::picture::{LINE, MIDDLE, labelled};
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::report::Metric;
use crate::statistics::{Interval, ratio};

/// Doublings or halvings that are shown: from a sixteenth to sixteen times. What is beyond has an arrow.
const DOUBLINGS: f64 = 4.0;

/// Ratios stand by their logarithm, so that half and double are as far from 1.
fn scale() -> Scale {
    Scale::new(-DOUBLINGS, DOUBLINGS)
}

/// The bar of one VMM: its ratio to the baseline, with the interval that is sure.
pub(super) fn bar(metric: &Metric, vmm: &str, baseline: &str) -> String {
    let Some((seen, interval)) = ratio(metric.of(vmm), metric.of(baseline)) else {
        return Svg::new(LINE, "no ratio").finish();
    };
    let mut svg = Svg::new(LINE, &format!("{seen:.2} times {baseline}"));
    svg.across("grid", [0.0, 100.0], MIDDLE);
    if seen > 0.0 {
        let is_better = (seen < 1.0) == metric.is_lower_better();
        let place = |ratio: f64| scale().place(ratio.log2());
        svg.bar(
            if is_better { "better" } else { "worse" },
            [place(1.0), place(seen)],
            5,
            LINE - 10,
        );
        if let Some(Interval { low, high }) = interval.filter(|interval| interval.low > 0.0) {
            svg.across("interval", [place(low), place(high)], MIDDLE);
        }
        arrow(&mut svg, seen);
    } else {
        arrow(&mut svg, 0.0);
    }
    svg.down("one", scale().place(0.0), [0, LINE]);
    svg.finish()
}

/// Says where the bar goes on outside.
fn arrow(svg: &mut Svg, seen: f64) {
    let doublings = seen.log2();
    if doublings < -DOUBLINGS {
        svg.label(0.0, MIDDLE + 4, Anchor::Start, "◂");
    } else if doublings > DOUBLINGS {
        svg.label(100.0, MIDDLE + 4, Anchor::End, "▸");
    }
}

/// The scale below the bars, from a sixteenth of the baseline to sixteen times as much.
pub(super) fn axis() -> String {
    let labels = [(-4.0, "1/16"), (-2.0, "1/4"), (0.0, "1"), (2.0, "4"), (4.0, "16")];
    let places = labels.map(|(doublings, label)| (scale().place(doublings), label.to_owned()));
    labelled(places.into(), "scale, times the baseline")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    fn picture(own: &[f64], better: Better) -> String {
        let mut metric = Metric::new("a.b", "a", "", better);
        own.iter().for_each(|value| metric.add("strait", *value));
        own.iter().for_each(|_| metric.add("qemu", 8.0));
        bar(&metric, "strait", "qemu")
    }

    #[test]
    fn half_goes_left_and_double_right_as_far() {
        assert!(picture(&[4.0], Better::Lower).contains(r#"class="better" x="38.50%" y="5" width="11.50%""#));
        assert!(picture(&[16.0], Better::Lower).contains(r#"class="worse" x="50.00%" y="5" width="11.50%""#));
        assert!(picture(&[16.0], Better::Higher).contains(r#"class="better""#));
    }

    #[test]
    fn what_is_beyond_the_scale_or_nothing_at_all_has_an_arrow() {
        assert!(picture(&[0.01], Better::Lower).contains('◂'));
        assert!(picture(&[0.0], Better::Lower).contains('◂'));
        assert!(picture(&[800.0], Better::Lower).contains('▸'));
        assert!(!picture(&[], Better::Lower).contains("<rect"));
    }
}

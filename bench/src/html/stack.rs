//! The picture of a whole and its parts: exits by reason, and the time of a start by what it is spent on.

use std::fmt::Write;

use super::picture::{LINE, axis, colour};
use super::scale::Scale;
use super::svg::{Escaped, Svg};
use crate::report::{Metric, Report};
use crate::statistics::median;
use crate::words::{heading, number};

/// The whole and its parts, a bar for each VMM and a list of what is in it; empty where nothing is a part of it.
pub(super) fn stack(report: &Report, whole: &Metric) -> String {
    let parts: Vec<&Metric> = report.parts(whole).collect();
    let bars: Vec<Bar<'_>> = report
        .vmms()
        .into_iter()
        .filter_map(|vmm| Bar::of(vmm, whole, &parts))
        .collect();
    let Some(longest) = bars
        .iter()
        .map(Bar::end)
        .reduce(f64::max)
        .filter(|end| *end > 0.0)
    else {
        return String::new();
    };
    let scale = Scale::new(0.0, longest);
    let mut text = format!(
        "<figure><figcaption>{}, by parts</figcaption>",
        Escaped(&heading(whole))
    );
    for bar in &bars {
        let (vmm, picture) = (Escaped(bar.vmm), bar.picture(scale));
        let _ = write!(text, "<div class=\"stack\"><b>{vmm}</b>{picture}</div>");
    }
    let numbers = axis(scale, &whole.unit);
    let _ = write!(
        text,
        "<div class=\"stack\"><b></b>{numbers}</div>{}</figure>",
        list(&parts, &bars)
    );
    text
}

/// One VMM: the median of the whole, and of each part, 0 where it has none.
struct Bar<'a> {
    vmm: &'a str,
    whole: f64,
    parts: Vec<f64>,
}

impl<'a> Bar<'a> {
    fn of(vmm: &'a str, whole: &Metric, parts: &[&Metric]) -> Option<Self> {
        let of = |metric: &Metric| median(metric.of(vmm));
        let has_parts = parts.iter().any(|part| of(part).is_some());
        let known = |part: &&Metric| of(part).unwrap_or_default().max(0.0);
        has_parts.then(|| Self {
            vmm,
            whole: of(whole).unwrap_or_default(),
            parts: parts.iter().map(known).collect(),
        })
    }

    /// What no part has. Medians of parts may together be more than that of the whole.
    fn rest(&self) -> f64 {
        (self.whole - self.parts.iter().sum::<f64>()).max(0.0)
    }

    fn end(&self) -> f64 {
        self.parts.iter().sum::<f64>() + self.rest()
    }

    fn picture(&self, scale: Scale) -> String {
        let mut svg = Svg::new(LINE, &format!("{} in parts, as listed below", self.vmm));
        let mut from = 0.0;
        let named = self.parts.iter().enumerate();
        let classes = named.map(|(place, part)| (colour(place), *part));
        for (class, part) in classes.chain([("rest".to_owned(), self.rest())]) {
            if part > 0.0 {
                svg.bar(
                    &format!("part {class}"),
                    [scale.place(from), scale.place(from + part)],
                    2,
                    LINE - 4,
                );
            }
            from += part;
        }
        svg.finish()
    }
}

/// What each colour is, with the figures.
fn list(parts: &[&Metric], bars: &[Bar<'_>]) -> String {
    let mut text = String::from("<table><tr><th></th>");
    for bar in bars {
        let _ = write!(text, "<th>{}</th>", Escaped(bar.vmm));
    }
    for (place, part) in parts.iter().enumerate() {
        let (class, title) = (colour(place), Escaped(&part.title));
        let _ = write!(text, "</tr><tr><td><i class=\"{class}\"></i>{title}</td>");
        for bar in bars {
            let _ = write!(text, "<td>{}</td>", number(bar.parts[place]));
        }
    }
    text.push_str("</tr><tr><td><i class=\"rest\"></i>the rest</td>");
    for bar in bars {
        let _ = write!(text, "<td>{}</td>", number(bar.rest()));
    }
    text.push_str("</tr></table>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    fn report(whole: f64) -> Report {
        let mut report = Report::new("qemu");
        let mut add = |metric: Metric, value: f64| report.metric(metric).add("strait", value);
        add(Metric::new("exits.all", "exits", "", Better::Lower), whole);
        let part = |id: &str| Metric::new(id, id, "", Better::Lower).part_of("exits.all");
        add(part("exits.port"), 60.0);
        add(part("exits.memory"), 30.0);
        report
    }

    #[test]
    fn parts_stand_behind_each_other_and_the_rest_behind_them() {
        let report = report(100.0);
        let text = stack(&report, &report.metrics[0]);
        assert!(
            text.contains(r#"class="part c0" x="4.00%" y="2" width="55.20%""#),
            "{text}"
        );
        assert!(
            text.contains(r#"class="part c1" x="59.20%" y="2" width="27.60%""#),
            "{text}"
        );
        assert!(
            text.contains(r#"class="part rest" x="86.80%" y="2" width="9.20%""#),
            "{text}"
        );
        assert!(text.contains("the rest</td><td>10</td>"), "{text}");
    }

    #[test]
    fn parts_that_are_more_than_the_whole_leave_no_rest() {
        let report = report(80.0);
        let text = stack(&report, &report.metrics[0]);
        assert!(!text.contains("part rest"), "{text}");
    }

    #[test]
    fn no_parts_no_picture() {
        let report = report(80.0);
        assert_eq!(stack(&report, &report.metrics[1]), "");
    }
}

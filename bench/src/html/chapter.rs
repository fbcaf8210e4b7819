//! A chapter of the page: metrics, each with its figures, its ratios and its rounds.

use std::fmt::Write;

use super::picture::axis;
use super::svg::Escaped;
use super::{ratios, rounds, stack};
use crate::report::{Metric, Report};
use crate::statistics::{interval, median};
use crate::words::{asked, bounds, heading, number};

/// Every metric of a chapter that is no part of another.
pub(super) fn chapter(report: &Report, name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    let title = first.unwrap_or_default() + letters.as_str();
    let mut text = format!("<section><h2>{}</h2>\n", Escaped(&title));
    let wholes = report.metrics.iter().filter(|metric| metric.part_of.is_none());
    for metric in wholes.filter(|metric| metric.chapter() == name) {
        text.push_str(&row(report, metric));
    }
    text.push_str("</section>\n");
    text
}

fn row(report: &Report, metric: &Metric) -> String {
    let mut text = format!("<article><h3>{}</h3>", Escaped(&heading(metric)));
    if let Some(asked) = asked(metric, &report.baseline) {
        let class = if metric.is_met(&report.baseline) == Some(false) {
            "missed"
        } else {
            "asked"
        };
        let _ = write!(text, "<p class=\"{class}\">{}</p>", Escaped(&asked));
    }
    for vmm in report.vmms_of(metric) {
        text.push_str(&line(report, metric, vmm));
    }
    if let Some(scale) = rounds::scale(metric) {
        let (ratios, rounds) = (ratios::axis(), axis(scale, &metric.unit));
        let _ = write!(
            text,
            "<div class=\"line numbers\"><b></b><span></span><span></span>{ratios}{rounds}</div>"
        );
    }
    if let Some(floor) = &metric.floor {
        let (probe, value) = (Escaped(&floor.probe), number(floor.value));
        let _ = write!(text, "<p>Floor: {value}, {probe}.</p>");
    }
    text.push_str(&stack::stack(report, metric));
    text.push_str("</article>\n");
    text
}

/// One VMM of one metric.
fn line(report: &Report, metric: &Metric, vmm: &str) -> String {
    let rounds = metric.of(vmm);
    let name = Escaped(vmm);
    let why = metric.unmeasured.get(vmm);
    let (Some(middle), Some(scale)) = (median(rounds), rounds::scale(metric)) else {
        let why = why.map_or("", String::as_str);
        return format!(
            "<div class=\"line\"><b>{name}</b><span class=\"why\">{}</span></div>",
            Escaped(why)
        );
    };
    let figure = format!("{}{}", number(middle), bounds(interval(rounds)));
    let beside: String = metric
        .ratios(vmm, &report.baseline)
        .iter()
        .map(|beside| format!("<span>{}</span>", Escaped(&beside.to_string())))
        .collect();
    let bar = if vmm == report.baseline {
        "<span class=\"picture\"></span>".to_owned()
    } else {
        ratios::bar(metric, vmm, &report.baseline)
    };
    let dots = rounds::dots(metric, vmm, scale);
    let note = why.map_or_else(String::new, |why| {
        format!("<p class=\"why\">{name}: a round failed: {}</p>", Escaped(why))
    });
    format!(
        "<div class=\"line\"><b>{name}</b><span>{figure}</span><span>{beside}</span>{bar}{dots}</div>{note}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    #[test]
    fn a_vmm_without_figures_says_why_and_one_with_fewer_too() {
        let mut report = Report::new("qemu");
        let metric = report.metric(Metric::new("start.wall", "start", "s", Better::Lower));
        metric.fail("kvmtool", "it <hung>");
        metric.add("strait", 1.0);
        metric.fail("strait", "round 2 crashed");
        metric.add("qemu", 2.0);
        let text = chapter(&report, "start");
        assert!(
            text.contains("<h2>Start</h2>") && text.contains("<h3>start, s</h3>"),
            "{text}"
        );
        assert!(text.contains("it &lt;hung&gt;"), "{text}");
        assert!(text.contains("a round failed: round 2 crashed"), "{text}");
        assert!(text.contains("0.50 of qemu"), "{text}");
    }
}

//! Reports for a terminal.

use std::fmt::Write;

use crate::compare::Line;
use crate::report::{Metric, Report};
use crate::statistics::{Interval, interval, median, ratio};

/// The medians of all VMMs, each with its interval and its ratio to the baseline.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    if !report.is_complete {
        text.push_str("This run did not come to its end: what follows is a part.\n");
    }
    for metric in &report.metrics {
        let _ = writeln!(text, "{}{}", metric.title, unit(metric));
        for vmm in report.vmms() {
            let _ = writeln!(text, "  {vmm:12} {}", figure(report, metric, vmm));
        }
    }
    for broken in report.broken() {
        let _ = writeln!(
            text,
            "broken measurement: {} of {} is {}, better than {} of a probe: {}",
            broken.title, broken.vmm, broken.value, broken.floor.value, broken.floor.probe
        );
    }
    text
}

/// A line for each metric and VMM of two reports.
pub fn comparison_table(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let shown = line.ratio.map_or_else(|| "-".to_owned(), shown_ratio);
        let (verdict, title, vmm) = (line.verdict.words(), &line.title, &line.vmm);
        let _ = writeln!(text, "{verdict:12} {shown:24} {vmm:12} {title}");
    }
    text
}

fn unit(metric: &Metric) -> String {
    if metric.unit.is_empty() {
        String::new()
    } else {
        format!(", {}", metric.unit)
    }
}

fn figure(report: &Report, metric: &Metric, vmm: &str) -> String {
    let rounds = metric.of(vmm);
    let Some(middle) = median(rounds) else {
        let why = metric.unmeasured.get(vmm).map_or("not measured", String::as_str);
        return format!("- ({why})");
    };
    let mut text = format!("{middle:.2}{}", bounds(interval(rounds)));
    if vmm != report.baseline
        && let Some(beside) = ratio(rounds, metric.of(&report.baseline))
    {
        let _ = write!(text, "  x {}", shown_ratio(beside));
    }
    text
}

fn shown_ratio((seen, interval): (f64, Option<Interval>)) -> String {
    format!("{seen:.2}{}", bounds(interval))
}

fn bounds(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |Interval { low, high }| {
        format!(" [{low:.2}, {high:.2}]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    #[test]
    fn a_figure_has_its_interval_its_ratio_or_its_reason() {
        let mut report = Report::new("qemu");
        let metric = report.metric(Metric::new("exits.all", "exits", "", Better::Lower));
        for _ in 0..2 {
            metric.add("strait", 3.0);
            metric.add("qemu", 6.0);
        }
        metric.fail("crosvm", "it hung");
        let text = table(&report);
        assert!(
            text.contains("strait       3.00 [3.00, 3.00]  x 0.50 [0.50, 0.50]"),
            "{text}"
        );
        assert!(text.contains("crosvm       - (it hung)"), "{text}");
        assert!(text.contains("did not come to its end"), "{text}");
    }
}

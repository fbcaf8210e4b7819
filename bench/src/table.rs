//! Reports for a terminal.

use std::fmt::Write;

use crate::compare::Comparison;
use crate::report::{Metric, Report};
use crate::statistics::{interval, median};
use crate::words::{asked, bounds, heading, number};

/// The medians of all VMMs, each with its interval and its ratios to others; parts of a metric in a line each.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    if !report.is_complete {
        text.push_str("This run did not come to its end: what follows is a part.\n");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "{warning}");
    }
    if report.metrics.is_empty() {
        text.push_str("There are no figures.\n");
    }
    for metric in report.metrics.iter().filter(|metric| metric.part_of.is_none()) {
        let asked = asked(metric, &report.baseline).map_or_else(String::new, |asked| format!("  ({asked})"));
        let _ = writeln!(text, "{}{asked}", heading(metric));
        let vmms = report.vmms_of(metric);
        for vmm in &vmms {
            let _ = writeln!(text, "  {vmm:16} {}", figure(report, metric, vmm));
        }
        for part in report.parts(metric) {
            let _ = writeln!(text, "    {:36} {}", part.title, medians(&vmms, part));
        }
    }
    for broken in report.broken() {
        let _ = writeln!(text, "{broken}");
    }
    text
}

/// What is doubtful of two reports, then a line for each metric and VMM.
pub fn comparison_table(comparison: &Comparison) -> String {
    let mut text = String::new();
    for doubt in &comparison.doubts {
        let _ = writeln!(text, "{doubt}");
    }
    for line in &comparison.lines {
        let shown = line.ratio.map_or_else(
            || "-".to_owned(),
            |(seen, interval)| format!("{}{}", number(seen), bounds(interval)),
        );
        let (verdict, title, vmm) = (line.verdict.words(), &line.title, &line.vmm);
        let _ = writeln!(text, "{verdict:12} {shown:24} {vmm:12} {title}");
    }
    text
}

fn figure(report: &Report, metric: &Metric, vmm: &str) -> String {
    let rounds = metric.of(vmm);
    let Some(middle) = median(rounds) else {
        let why = metric.unmeasured.get(vmm).map_or("", String::as_str);
        return format!("- ({why})");
    };
    let mut text = format!("{}{}", number(middle), bounds(interval(rounds)));
    for beside in metric.ratios(vmm, &report.baseline) {
        let _ = write!(text, ", {beside}");
    }
    text
}

fn medians(vmms: &[&str], part: &Metric) -> String {
    let of = |vmm: &&str| {
        let shown = median(part.of(vmm)).map_or_else(|| "-".to_owned(), number);
        format!("{vmm} {shown:10}")
    };
    let all: Vec<String> = vmms.iter().map(of).collect();
    all.join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Asked, Better};

    #[test]
    fn a_figure_has_its_interval_its_ratio_or_its_reason() {
        let mut report = Report::new("qemu");
        let asked = Asked::RatioAtMost(0.4);
        let metric = report.metric(Metric::new("exits.all", "exits", "", Better::Lower).asked(asked));
        for value in [2.0, 3.0, 4.0, 2.0, 3.0, 4.0] {
            metric.add("strait", value);
            metric.add("qemu", 6.0);
        }
        metric.fail("crosvm", "it hung");
        let port = Metric::new("exits.port", "of ports", "", Better::Lower).part_of("exits.all");
        report.metric(port).add("strait", 2.0);
        let text = table(&report);
        assert!(
            text.contains("strait           3 [2, 4], 0.50 [0.33, 0.67] of qemu"),
            "{text}"
        );
        assert!(text.contains("crosvm           - (it hung)"), "{text}");
        assert!(
            text.contains("exits  (asked: at most 0.40 of qemu's: MISSED)"),
            "{text}"
        );
        assert!(
            text.contains("    of ports                             strait 2"),
            "{text}"
        );
        assert!(text.contains("did not come to its end"), "{text}");
    }
}

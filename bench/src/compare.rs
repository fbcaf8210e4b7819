//! Two reports beside each other.

use crate::report::{Metric, Report};
use crate::statistics::{Interval, Verdict, ratio};

/// What of a host makes two reports those of two hosts.
const HOST: [&str; 2] = ["CPU", "kernel"];

/// What became of one metric of one VMM.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The metric's title, as the table and the JSON have it.
    pub title: String,
    /// The name of the VMM whose figure it is, as the report has it.
    pub vmm: String,
    /// The new median in terms of the old one, with its interval, where there is a ratio.
    pub ratio: Option<(f64, Option<Interval>)>,
    /// What can be said.
    pub verdict: Verdict,
}

/// All that can be said of two reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What makes verdicts doubtful, a line each.
    pub doubts: Vec<String>,
    /// A line for each metric and VMM that either report has.
    pub lines: Vec<Line>,
    /// Figures that both reports have, in the same unit.
    pub pairs: usize,
}

/// Looks for every figure of either report in the other.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let mut comparison = Comparison {
        doubts: doubts(old, new),
        lines: Vec::new(),
        pairs: 0,
    };
    for metric in &new.metrics {
        let before = old.metrics.iter().find(|before| before.id == metric.id);
        comparison.add(before, Some(metric), (old, new));
    }
    for metric in &old.metrics {
        if !new.metrics.iter().any(|after| after.id == metric.id) {
            comparison.add(Some(metric), None, (old, new));
        }
    }
    comparison
}

/// What differs between the two as wholes.
fn doubts(old: &Report, new: &Report) -> Vec<String> {
    let mut doubts = Vec::new();
    for (name, report) in [("OLD", old), ("NEW", new)] {
        if !report.is_complete {
            doubts.push(format!(
                "{name} is a part: its run did not come to its end, and has fewer rounds for it."
            ));
        }
    }
    for what in HOST {
        let of = |report: &Report| {
            let mut facts = report.host.iter().filter(|(fact, _)| fact == what);
            facts.next().map_or("not known", |(_, value)| value).to_owned()
        };
        let (before, after) = (of(old), of(new));
        if before != after {
            doubts.push(format!(
                "Another host: {what} of OLD is {before}, of NEW {after}; a verdict may be about that alone."
            ));
        }
    }
    if old.baseline != new.baseline {
        doubts.push(format!(
            "Another baseline: OLD stands beside {}, NEW beside {}; what was asked of Strait is not the same.",
            old.baseline, new.baseline
        ));
    }
    doubts
}

impl Comparison {
    /// Adds a metric that at least one of the two reports has.
    fn add(&mut self, before: Option<&Metric>, after: Option<&Metric>, (old, new): (&Report, &Report)) {
        let Some(metric) = after.or(before) else {
            return;
        };
        let difference = before.zip(after).and_then(|(old, new)| incomparable(old, new));
        if let Some(difference) = &difference {
            let title = &metric.title;
            self.doubts.push(format!("{title}: {difference}; not compared."));
        }
        let mut vmms = new.vmms();
        vmms.extend(old.vmms().into_iter().filter(|vmm| !new.vmms().contains(vmm)));
        for vmm in vmms {
            let of = |metric: Option<&Metric>| metric.map_or_else(Vec::new, |metric| metric.of(vmm).to_vec());
            let (before, after) = (of(before), of(after));
            if before.is_empty() && after.is_empty() {
                continue;
            }
            let (ratio, verdict) = match difference {
                Some(_) => (None, Verdict::CannotTell),
                None => (
                    ratio(&after, &before),
                    Verdict::of(&after, &before, metric.is_lower_better()),
                ),
            };
            self.pairs += usize::from(difference.is_none() && !before.is_empty() && !after.is_empty());
            self.lines.push(Line {
                title: metric.title.clone(),
                vmm: vmm.to_owned(),
                ratio,
                verdict,
            });
        }
    }
}

/// Why two figures of the same name are not the same figure.
fn incomparable(old: &Metric, new: &Metric) -> Option<String> {
    let unit = |metric: &Metric| match metric.unit.as_str() {
        "" => "a count".to_owned(),
        unit => unit.to_owned(),
    };
    if old.unit != new.unit {
        Some(format!("OLD has it in {}, NEW in {}", unit(old), unit(new)))
    } else if old.better != new.better {
        Some("less is better in one of the two, more in the other".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    fn report(id: &str, rounds: &[f64]) -> Report {
        let mut report = Report::new("qemu");
        report.is_complete = true;
        let metric = report.metric(Metric::new(id, id, "", Better::Lower));
        rounds.iter().for_each(|value| metric.add("strait", *value));
        report
    }

    #[test]
    fn a_count_that_halved_is_better() {
        let found = compare(
            &report("exits.all", &[8.0, 8.0]),
            &report("exits.all", &[4.0, 4.0]),
        );
        assert_eq!((found.lines.len(), found.pairs, found.doubts.len()), (1, 1, 0));
        assert_eq!(found.lines[0].verdict, Verdict::Better);
        assert_eq!(found.lines[0].ratio.map(|(seen, _)| seen), Some(0.5));
    }

    #[test]
    fn what_only_one_report_has_cannot_be_told() {
        let found = compare(&report("a.old", &[8.0, 8.0]), &report("a.new", &[4.0, 4.0]));
        assert_eq!((found.lines.len(), found.pairs), (2, 0));
        assert!(found.lines.iter().all(|line| line.verdict == Verdict::CannotTell));
    }

    #[test]
    fn figures_in_another_unit_or_of_another_meaning_are_not_compared() {
        let old = report("start.wall", &[8.0, 8.0]);
        let mut in_ms = report("start.wall", &[4.0, 4.0]);
        in_ms.metrics[0].unit = "ms".to_owned();
        let mut reversed = report("start.wall", &[4.0, 4.0]);
        reversed.metrics[0].better = Better::Higher;
        for (new, why) in [
            (in_ms, "in a count, NEW in ms"),
            (reversed, "less is better in one"),
        ] {
            let found = compare(&old, &new);
            assert_eq!(found.pairs, 0);
            assert_eq!(
                (found.lines[0].verdict, found.lines[0].ratio),
                (Verdict::CannotTell, None)
            );
            assert_eq!(found.doubts.len(), 1);
            assert!(found.doubts[0].contains(why), "{:?}", found.doubts);
        }
    }

    #[test]
    fn another_host_a_part_and_another_baseline_are_told_in_a_line_each() {
        let on = |cpu: &str, kernel: &str| {
            let mut report = report("start.wall", &[8.0, 8.0]);
            report.host = [("CPU", cpu), ("kernel", kernel), ("memory", cpu)]
                .map(|(what, value)| (what.to_owned(), value.to_owned()))
                .to_vec();
            report
        };
        let old = on("2 x A", "6.1");
        let mut new = on("4 x B", "6.12");
        new.is_complete = false;
        new.baseline = "crosvm".to_owned();
        let doubts = compare(&old, &new).doubts;
        assert_eq!(doubts.len(), 4, "{doubts:?}");
        for (doubt, words) in doubts.iter().zip([
            "NEW is a part",
            "CPU of OLD is 2 x A, of NEW 4 x B",
            "kernel of OLD is 6.1, of NEW 6.12",
            "OLD stands beside qemu, NEW beside crosvm",
        ]) {
            assert!(doubt.contains(words), "{doubt}");
        }
        assert_eq!(compare(&old, &old).doubts, [""; 0]);
    }
}

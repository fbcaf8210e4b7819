//! Two reports beside each other.

use crate::report::Report;
use crate::statistics::{Interval, Verdict, ratio};

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

/// A line for each metric and VMM that either report has.
pub fn compare(old: &Report, new: &Report) -> Vec<Line> {
    let gone = old
        .metrics
        .iter()
        .filter(|metric| !new.metrics.iter().any(|other| other.id == metric.id));
    let mut lines = Vec::new();
    for metric in new.metrics.iter().chain(gone) {
        let of = |report: &Report, vmm: &str| {
            let found = report.metrics.iter().find(|other| other.id == metric.id);
            found.map_or_else(Vec::new, |found| found.of(vmm).to_vec())
        };
        let mut vmms = new.vmms();
        vmms.extend(old.vmms().into_iter().filter(|vmm| !new.vmms().contains(vmm)));
        for vmm in vmms {
            let (before, after) = (of(old, vmm), of(new, vmm));
            if before.is_empty() && after.is_empty() {
                continue;
            }
            lines.push(Line {
                title: metric.title.clone(),
                vmm: vmm.to_owned(),
                ratio: ratio(&after, &before),
                verdict: Verdict::of(&after, &before, metric.is_lower_better()),
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Better, Metric};

    fn report(id: &str, rounds: &[f64]) -> Report {
        let mut report = Report::new("qemu");
        let metric = report.metric(Metric::new(id, id, "", Better::Lower));
        rounds.iter().for_each(|value| metric.add("strait", *value));
        report
    }

    #[test]
    fn a_count_that_halved_is_better() {
        let lines = compare(
            &report("exits.all", &[8.0, 8.0]),
            &report("exits.all", &[4.0, 4.0]),
        );
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].verdict, Verdict::Better);
        assert_eq!(lines[0].ratio.map(|(seen, _)| seen), Some(0.5));
    }

    #[test]
    fn what_only_one_report_has_cannot_be_told() {
        let lines = compare(&report("a.old", &[8.0, 8.0]), &report("a.new", &[4.0, 4.0]));
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.verdict == Verdict::CannotTell));
    }
}

//! From what was measured of each VMM to the metrics of a report.

use super::counts::{Counts, all_keys};
use super::figures::Figures;
use crate::report::{Asked, Better, Floor, Metric, Report};

/// How many keys of a histogram are told apart.
const SHOWN: usize = 8;

/// A report that is filled from figures.
pub struct Sheet<'a, R> {
    report: &'a mut Report,
    figures: &'a Figures<R>,
}

/// A metric of which less is better, with its unit.
pub fn less(id: &str, title: &str, unit: &str) -> Metric {
    Metric::new(id, title, unit, Better::Lower)
}

/// A metric of which more is better, with its unit.
pub fn more(id: &str, title: &str, unit: &str) -> Metric {
    Metric::new(id, title, unit, Better::Higher)
}

impl<'a, R> Sheet<'a, R> {
    /// One with these figures.
    pub fn new(report: &'a mut Report, figures: &'a Figures<R>) -> Self {
        Self { report, figures }
    }

    /// Adds a metric, with what `rounds` finds of each VMM; not a number is a round that failed.
    pub fn row<I: IntoIterator<Item = f64>>(&mut self, metric: Metric, rounds: impl Fn(&R) -> I) {
        let metric = self.report.metric(metric);
        for (vmm, runs) in self.figures.all() {
            rounds(runs).into_iter().for_each(|value| metric.add(vmm, value));
        }
    }

    /// Adds a metric of the host itself, if anything was measured of it, whoever's rounds it was beside.
    pub fn of_host(&mut self, metric: Metric, rounds: impl Fn(&R) -> Vec<f64>) {
        let all: Vec<_> = self.figures.all().flat_map(|(_, runs)| rounds(runs)).collect();
        if !all.is_empty() {
            let metric = self.report.metric(metric);
            all.into_iter().for_each(|value| metric.add("host", value));
        }
    }

    /// Something of what was measured of one VMM.
    pub fn of<T>(&self, vmm: &str, find: impl Fn(&R) -> T) -> Option<T> {
        let (_, runs) = self.figures.all().find(|(name, _)| *name == vmm)?;
        Some(find(runs))
    }

    /// Says what is asked of Strait for a metric that is there.
    pub fn ask(&mut self, id: &str, asked: Asked) {
        let named = self.report.metrics.iter_mut().filter(|metric| metric.id == id);
        named.for_each(|metric| metric.asked = Some(asked));
    }

    /// Gives a metric that is there the floor that `value` finds in what was measured of any VMM; `probe` says what it is.
    pub fn floor(&mut self, id: &str, probe: &str, value: impl Fn(&R) -> Option<f64>) {
        let Some(value) = self.figures.all().find_map(|(_, runs)| value(runs)) else {
            return;
        };
        for metric in self.report.metrics.iter_mut().filter(|metric| metric.id == id) {
            metric.floor = Some(Floor {
                probe: probe.to_owned(),
                value,
            });
        }
    }

    /// Adds all that a histogram counted, and its most frequent keys as parts of it. `label` names a key.
    pub fn histogram(
        &mut self,
        whole: Metric,
        name: &str,
        label: fn(u64) -> String,
        rounds: impl Fn(&R) -> Vec<&Counts>,
    ) {
        let id = whole.id.clone();
        let all = self.figures.all().flat_map(|(_, runs)| rounds(runs));
        let keys = all_keys(all, name);
        self.row(whole, |runs| {
            let totals = rounds(runs).into_iter().map(|counts| counts.total(name) as f64);
            totals.collect::<Vec<_>>()
        });
        for key in keys.into_iter().take(SHOWN) {
            let number = match key.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => key.parse().ok(),
            };
            let title = number.map_or_else(|| key.clone(), label);
            self.row(less(&format!("{id}.{key}"), &title, "").part_of(&id), |runs| {
                let counts = rounds(runs)
                    .into_iter()
                    .map(|counts| counts.of(name, &key) as f64);
                counts.collect::<Vec<_>>()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_histogram_becomes_a_whole_and_its_parts() {
        let counts = |ports: &[(&str, u64)]| {
            let ports: BTreeMap<_, _> = ports
                .iter()
                .map(|(key, count)| ((*key).to_owned(), *count))
                .collect();
            Counts::new(std::iter::once(("ports".to_owned(), ports)))
        };
        let mut figures: Figures<Vec<Counts>> = Figures::default();
        *figures.of("strait") = vec![counts(&[("2", 5)]), counts(&[("2", 7), ("0x6", 1)])];
        *figures.of("qemu") = vec![counts(&[("0x6", 9)])];
        let mut report = Report::new("qemu");
        let whole = less("exits.all", "exits", "");
        let label = |key: u64| format!("number {key}");
        Sheet::new(&mut report, &figures).histogram(whole, "ports", label, |runs| runs.iter().collect());
        let titles: Vec<_> = report
            .metrics
            .iter()
            .map(|metric| metric.title.as_str())
            .collect();
        assert_eq!(titles, ["exits", "number 6", "number 2"]);
        assert_eq!(report.metrics[0].of("strait"), [5.0, 8.0]);
        assert_eq!(report.metrics[1].of("strait"), [0.0, 1.0]);
        assert_eq!(report.parts(&report.metrics[0]).count(), 2);
    }

    #[test]
    fn what_is_the_hosts_is_no_vmms_and_there_only_if_it_was_measured() {
        let mut figures: Figures<Vec<f64>> = Figures::default();
        *figures.of("strait") = vec![5.0, 7.0];
        let mut report = Report::new("qemu");
        let mut sheet = Sheet::new(&mut report, &figures);
        sheet.of_host(less("there", "", "us"), Vec::clone);
        sheet.of_host(less("not", "", "us"), |_| Vec::new());
        let [metric] = &report.metrics[..] else {
            panic!("{:?}", report.metrics);
        };
        assert_eq!(
            (metric.of("host"), metric.of("strait")),
            (&[5.0, 7.0][..], &[][..])
        );
    }
}

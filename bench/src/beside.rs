//! A VMM's figure beside those of others.

use std::fmt;

use crate::report::Metric;
use crate::statistics::{Interval, median, ratio};
use crate::words::{bounds, number};

/// How many times another's figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Beside<'a> {
    seen: f64,
    interval: Option<Interval>,
    other: &'a str,
}

impl fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{} of {}",
            number(self.seen),
            bounds(self.interval),
            self.other
        )
    }
}

impl Metric {
    /// The ratios of a VMM to the baseline, to the best of the others where that is not the baseline, and to the
    /// floor.
    pub(crate) fn ratios<'a>(&'a self, vmm: &str, baseline: &'a str) -> Vec<Beside<'a>> {
        let best = self.best_peer().filter(|best| *best != baseline);
        let others = [Some(baseline), best].into_iter().flatten();
        let beside = |other: &'a str| {
            let (seen, interval) = ratio(self.of(vmm), self.of(other))?;
            Some(Beside {
                seen,
                interval,
                other,
            })
        };
        let mut all: Vec<_> = others.filter(|other| *other != vmm).filter_map(beside).collect();
        all.extend(self.beside_floor(vmm));
        all
    }

    /// Who is best, of all but Strait.
    fn best_peer(&self) -> Option<&str> {
        let peers = self.rounds.iter().filter(|(vmm, _)| *vmm != "strait");
        let medians = peers.filter_map(|(vmm, rounds)| Some((vmm.as_str(), median(rounds)?)));
        let best = |(one, less): (_, f64), (other, more)| {
            if (more < less) == self.is_lower_better() {
                (other, more)
            } else {
                (one, less)
            }
        };
        medians.reduce(best).map(|(vmm, _)| vmm)
    }

    fn beside_floor(&self, vmm: &str) -> Option<Beside<'_>> {
        let floor = self.floor.as_ref()?;
        let (seen, interval) = ratio(self.of(vmm), &[floor.value, floor.value])?;
        Some(Beside {
            seen,
            interval,
            other: "its floor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Better;

    fn metric(better: Better) -> Metric {
        let mut metric = Metric::new("start.wall", "start", "s", better);
        for (vmm, value) in [("strait", 1.0), ("qemu", 4.0), ("crosvm", 2.0), ("kvmtool", 8.0)] {
            metric.add(vmm, value);
        }
        metric
    }

    fn shown(metric: &Metric, vmm: &str) -> Vec<String> {
        metric
            .ratios(vmm, "qemu")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn ratios_are_to_the_baseline_the_best_peer_and_the_floor() {
        let less = metric(Better::Lower).floor("a probe", 0.5);
        assert_eq!(
            shown(&less, "strait"),
            ["0.25 of qemu", "0.50 of crosvm", "2 of its floor"]
        );
        assert_eq!(
            shown(&metric(Better::Higher), "strait"),
            ["0.25 of qemu", "0.12 of kvmtool"]
        );
    }

    #[test]
    fn nobody_stands_beside_himself() {
        let less = metric(Better::Lower);
        assert_eq!(shown(&less, "crosvm"), ["0.50 of qemu"]);
        assert_eq!(shown(&less, "qemu"), ["2 of crosvm"]);
    }
}

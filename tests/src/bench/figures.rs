//! The figures of all rounds, and their medians.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::process::Process;
use super::trace::Counts;
use crate::vmm::Vmm;

/// One start of one VMM.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Round {
    /// Start of the process to its end.
    pub(super) wall_s: f64,
    /// The guest's uptime when its first program runs.
    pub(super) init_s: f64,
    pub(super) counts: Counts,
}

/// All rounds of one VMM.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Runs {
    pub(super) process: Process,
    pub(super) rounds: Vec<Round>,
}

/// All VMMs.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) vmms: BTreeMap<&'static str, Runs>,
}

impl Figures {
    pub(super) fn add(&mut self, vmm: Vmm, round: Round) {
        self.vmms.entry(vmm.name()).or_default().rounds.push(round);
    }

    pub(super) fn set_process(&mut self, vmm: Vmm, process: Process) {
        self.vmms.entry(vmm.name()).or_default().process = process;
    }

    pub(super) fn of(&self, vmm: Vmm) -> Option<&Runs> {
        self.vmms.get(vmm.name())
    }

    /// Every key that any VMM counted in a histogram, the most frequent first.
    pub(super) fn keys(&self, histogram: &str) -> Vec<String> {
        let runs = self.vmms.values();
        let keys: BTreeSet<&String> = runs
            .clone()
            .flat_map(|runs| &runs.rounds)
            .filter_map(|round| round.counts.get(histogram))
            .flat_map(BTreeMap::keys)
            .collect();
        let weight = |key: &str| runs.clone().map(|runs| runs.count(histogram, Some(key))).max();
        let mut keys: Vec<String> = keys.into_iter().cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(weight(key)));
        keys
    }
}

impl Runs {
    /// The median of one figure.
    pub(super) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => 0.0,
            count if count % 2 == 1 => values[count / 2],
            count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
        }
    }

    /// The median count of one key of a histogram, or of all its keys together.
    pub(super) fn count(&self, histogram: &str, key: Option<&str>) -> u64 {
        let count = |round: &Round| {
            let keys = round.counts.get(histogram);
            let matching = keys.into_iter().flatten();
            let matching = matching.filter(|(found, _)| key.is_none_or(|key| key == *found));
            matching.map(|(_, count)| *count).sum::<u64>()
        };
        let mut values: Vec<u64> = self.rounds.iter().map(count).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(walls: &[f64]) -> Runs {
        let round = |wall_s: &f64| Round {
            wall_s: *wall_s,
            init_s: 0.0,
            counts: Counts::new(),
        };
        Runs {
            process: Process::default(),
            rounds: walls.iter().map(round).collect(),
        }
    }

    #[test]
    fn median_is_not_moved_by_one_bad_round() {
        assert!((runs(&[9.0, 30.0, 8.0]).median(|round| round.wall_s) - 9.0).abs() < f64::EPSILON);
        assert!((runs(&[2.0, 4.0]).median(|round| round.wall_s) - 3.0).abs() < f64::EPSILON);
    }
}

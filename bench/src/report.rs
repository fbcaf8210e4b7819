//! The figures of a run, by metric and VMM, in rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::statistics::{median, ratio};
use crate::words::number;

/// Rounds of one VMM in a report, at most: some a round of a run, of which there are 1,000.
const MOST_ROUNDS: usize = 20_000;

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Less is better, as with times, exits and memory.
    Lower,
    /// More is better, as with rates.
    Higher,
}

/// What no VMM can be better than, as a probe found that does the bare necessary alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// What the probe does.
    pub probe: String,
    /// The best of its rounds, in the unit of the metric.
    pub value: f64,
}

/// What Strait's figure is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// No more than this.
    AtMost(f64),
    /// No more than this part of the baseline's.
    RatioAtMost(f64),
    /// At least so many times the baseline's.
    RatioAtLeast(f64),
}

/// One figure: what it is, and every round of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Stays the same from version to version, `start.wall`. What is in front of the first dot is its chapter.
    pub id: String,
    /// The metric's name for people, in words.
    pub title: String,
    /// `s`, `KiB`; empty for counts.
    pub unit: String,
    /// Which way it is good.
    pub better: Better,
    /// The metric that this is a part of: exits of one reason are a part of all exits, the kernel's way to its first
    /// program is one of the start. Parts stand in the order in which they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// What nobody can be better than.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// What is asked of Strait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// By the VMM's name.
    pub rounds: BTreeMap<String, Vec<f64>>,
    /// Why there is nothing of a VMM.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unmeasured: BTreeMap<String, String>,
}

impl Metric {
    /// One without figures yet.
    pub fn new(id: &str, title: &str, unit: &str, better: Better) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            unit: unit.to_owned(),
            better,
            part_of: None,
            floor: None,
            asked: None,
            rounds: BTreeMap::new(),
            unmeasured: BTreeMap::new(),
        }
    }

    /// A part of another.
    #[must_use]
    pub fn part_of(mut self, whole: &str) -> Self {
        self.part_of = Some(whole.to_owned());
        self
    }

    /// With what is asked of Strait.
    #[must_use]
    pub fn asked(mut self, asked: Asked) -> Self {
        self.asked = Some(asked);
        self
    }

    /// With what a probe found.
    #[must_use]
    pub fn floor(mut self, probe: &str, value: f64) -> Self {
        self.floor = Some(Floor {
            probe: probe.to_owned(),
            value,
        });
        self
    }

    /// Adds a round. What is not a number was not measured.
    pub fn add(&mut self, vmm: &str, value: f64) {
        if value.is_finite() {
            self.rounds.entry(vmm.to_owned()).or_default().push(value);
        } else {
            self.fail(vmm, "a round gave no number");
        }
    }

    /// Says why there is no figure, or none of a further round. The first reason stays.
    pub fn fail(&mut self, vmm: &str, why: &str) {
        let reason = self.unmeasured.entry(vmm.to_owned());
        reason.or_insert_with(|| why.to_owned());
    }

    /// Of whom it says something.
    fn vmms(&self) -> impl Iterator<Item = &str> {
        let names = self.rounds.keys().chain(self.unmeasured.keys());
        names.map(String::as_str)
    }

    /// The rounds of a VMM.
    pub fn of(&self, vmm: &str) -> &[f64] {
        self.rounds.get(vmm).map_or(&[], Vec::as_slice)
    }

    /// The chapter that it belongs to.
    pub fn chapter(&self) -> &str {
        self.id.split_once('.').map_or(&self.id, |(chapter, _)| chapter)
    }

    pub(crate) fn is_lower_better(&self) -> bool {
        self.better == Better::Lower
    }

    /// Whether Strait's figure is as it was asked, where both can be said.
    pub fn is_met(&self, baseline: &str) -> Option<bool> {
        let own = self.of("strait");
        let beside = || ratio(own, self.of(baseline)).map(|(seen, _)| seen);
        Some(match self.asked? {
            Asked::AtMost(limit) => median(own)? <= limit,
            Asked::RatioAtMost(limit) => beside()? <= limit,
            Asked::RatioAtLeast(limit) => beside()? >= limit,
        })
    }
}

/// A figure that cannot be: the measurement is broken.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// The title of the metric that is broken.
    pub title: String,
    /// The VMM whose figure is better than its floor.
    pub vmm: String,
    /// The median that is too good.
    pub value: f64,
    /// What it is better than.
    pub floor: Floor,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, floor) = (number(self.value), number(self.floor.value));
        write!(
            f,
            "broken measurement: {} of {} is {value}, better than the floor of {floor}: {}",
            self.title, self.vmm, self.floor.probe
        )
    }
}

/// All of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether it ran to its end.
    pub is_complete: bool,
    /// The VMM that others are put in a ratio to.
    pub baseline: String,
    /// What the host is: `CPU`, `kernel`, ...
    pub host: Vec<(String, String)>,
    /// What makes figures doubtful.
    pub warnings: Vec<String>,
    /// How each VMM was started, by its name.
    pub commands: BTreeMap<String, String>,
    /// In the order in which they are shown.
    pub metrics: Vec<Metric>,
}

impl Report {
    /// One without figures, which is not complete.
    pub fn new(baseline: &str) -> Self {
        Self {
            is_complete: false,
            baseline: baseline.to_owned(),
            host: Vec::new(),
            warnings: Vec::new(),
            commands: BTreeMap::new(),
            metrics: Vec::new(),
        }
    }

    /// The metric of this id, to add to: `new` where there is none yet.
    pub fn metric(&mut self, new: Metric) -> &mut Metric {
        let place = self.metrics.iter().position(|metric| metric.id == new.id);
        let place = place.unwrap_or_else(|| {
            self.metrics.push(new);
            self.metrics.len() - 1
        });
        &mut self.metrics[place]
    }

    /// Everyone of whom there is a figure or a reason for none: Strait first, then the baseline, then the others.
    pub fn vmms(&self) -> Vec<&str> {
        self.in_order(self.metrics.iter().flat_map(Metric::vmms).collect())
    }

    fn in_order<'a>(&self, names: BTreeSet<&'a str>) -> Vec<&'a str> {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_by_key(|name| (*name != "strait", *name != self.baseline, *name));
        names
    }

    /// Those of [`Report::vmms`] of whom this metric says something.
    pub(crate) fn vmms_of<'a>(&self, metric: &'a Metric) -> Vec<&'a str> {
        self.in_order(metric.vmms().collect())
    }

    /// What no run writes: a part of what is none, or of a part, which would be shown nowhere; more rounds than anybody waits
    /// for.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let wholes = self.metrics.iter().filter(|metric| metric.part_of.is_none());
        let wholes: BTreeSet<&str> = wholes.map(|metric| metric.id.as_str()).collect();
        self.metrics.iter().find_map(|metric| {
            let whole = metric.part_of.as_deref().filter(|whole| !wholes.contains(whole));
            let rounds = metric.rounds.values().map(Vec::len).max().unwrap_or(0);
            match whole {
                Some(whole) => Some(format!(
                    "`{}` is a part of `{whole}`, which is no whole",
                    metric.id
                )),
                None if rounds > MOST_ROUNDS => Some(format!("`{}` has {rounds} rounds", metric.id)),
                None => None,
            }
        })
    }

    /// Metrics that are a part of this one.
    pub fn parts<'a>(&'a self, whole: &'a Metric) -> impl Iterator<Item = &'a Metric> {
        let is_part = |metric: &&Metric| metric.part_of.as_deref() == Some(whole.id.as_str());
        self.metrics.iter().filter(is_part)
    }

    /// What is better than it can be.
    pub fn broken(&self) -> Vec<Broken> {
        let floors = self
            .metrics
            .iter()
            .filter_map(|metric| Some((metric, metric.floor.as_ref()?)));
        floors.flat_map(|(metric, floor)| broken(metric, floor)).collect()
    }
}

fn broken<'a>(metric: &'a Metric, floor: &'a Floor) -> impl Iterator<Item = Broken> + use<'a> {
    metric.rounds.iter().filter_map(move |(vmm, rounds)| {
        let value = median(rounds)?;
        let is_too_good = if metric.is_lower_better() {
            value < floor.value
        } else {
            value > floor.value
        };
        is_too_good.then(|| Broken {
            title: metric.title.clone(),
            vmm: vmm.clone(),
            value,
            floor: floor.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall() -> Metric {
        Metric::new("start.wall", "start to power-off", "s", Better::Lower)
    }

    #[test]
    fn a_figure_better_than_its_floor_is_a_broken_measurement() {
        let mut report = Report::new("qemu");
        let metric = report.metric(wall().floor("a launcher that only asks KVM", 2.0));
        metric.add("strait", 1.5);
        metric.add("qemu", 2.0);
        let broken = report.broken();
        assert_eq!(broken.len(), 1);
        assert_eq!((broken[0].vmm.as_str(), broken[0].value), ("strait", 1.5));
    }

    #[test]
    fn a_rate_above_its_floor_is_broken_too() {
        let mut report = Report::new("qemu");
        let rate = Metric::new("net.sent", "sent", "Mbit/s", Better::Higher).floor("the host itself", 100.0);
        report.metric(rate).add("qemu", 101.0);
        assert_eq!(report.broken().len(), 1);
    }

    #[test]
    fn what_is_not_a_number_is_a_reason() {
        let mut metric = wall();
        metric.add("qemu", f64::NAN);
        metric.fail("qemu", "a later reason");
        assert_eq!(metric.of("qemu"), [0.0; 0]);
        assert_eq!(metric.unmeasured["qemu"], "a round gave no number");
    }

    #[test]
    fn a_requirement_needs_what_it_is_about() {
        let mut metric = wall().asked(Asked::RatioAtMost(0.5));
        metric.add("strait", 1.0);
        assert_eq!(metric.is_met("qemu"), None);
        metric.add("qemu", 1.5);
        assert_eq!(metric.is_met("qemu"), Some(false));
    }

    #[test]
    fn strait_stands_first_and_the_baseline_second() {
        let mut report = Report::new("qemu");
        let metric = report.metric(wall());
        metric.add("crosvm", 1.0);
        metric.add("qemu", 1.0);
        metric.fail("strait", "it hung");
        assert_eq!(report.vmms(), ["strait", "qemu", "crosvm"]);
    }
}

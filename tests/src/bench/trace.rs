//! Counting exits and ioctls by the lab host's own tracepoints.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::agent::Agent;

/// Event, key, and the name in the report.
type Histogram = (&'static str, &'static str, &'static str);

const HISTOGRAMS: [Histogram; 4] = [
    ("kvm/kvm_userspace_exit", "reason", "userspace_exits"),
    ("kvm/kvm_exit", "exit_reason", "kvm_exits"),
    ("kvm/kvm_pio", "port", "pio_ports"),
    ("syscalls/sys_enter_ioctl", "cmd", "ioctls"),
];

const EVENTS: &str = "/sys/kernel/tracing/events";

/// Counts by key, for each histogram.
pub(super) type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// Histograms that count from now on. KVM's own counters in debugfs are lost with the VM.
pub(super) struct Trace<'a> {
    agent: &'a Agent,
}

impl<'a> Trace<'a> {
    /// Starts from zero.
    pub(super) fn start(agent: &'a Agent) -> Result<Self> {
        let set = |histogram: &Histogram| {
            format!(
                "echo '{}' > {EVENTS}/{}/trigger\n",
                trigger(histogram),
                histogram.0
            )
        };
        let script: String = HISTOGRAMS.iter().map(set).collect();
        let trace = Self { agent };
        agent.sh(&format!("set -e\n{script}"))?;
        Ok(trace)
    }

    /// Reads the counts and stops counting.
    pub(super) fn finish(self) -> Result<Counts> {
        let mut counts = Counts::new();
        for (event, _, name) in HISTOGRAMS {
            let text = self.agent.sh(&format!("cat {EVENTS}/{event}/hist"))?;
            counts.insert(name.to_owned(), parse(&text));
        }
        Ok(counts)
    }
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        let stop = |histogram: &Histogram| {
            format!(
                "echo '!{}' > {EVENTS}/{}/trigger\n",
                trigger(histogram),
                histogram.0
            )
        };
        let script: String = HISTOGRAMS.iter().map(stop).collect();
        let _ = self.agent.sh(&format!("{script}true"));
    }
}

fn trigger((event, key, _): &Histogram) -> String {
    // The harness's own helpers make ioctls too.
    let filter = if event.starts_with("syscalls") {
        " if comm != \"lab\" && comm != \"bash\""
    } else {
        ""
    };
    format!("hist:keys={key}:size=4096{filter}")
}

/// `{ reason:          2 } hitcount:        573`
fn parse(text: &str) -> BTreeMap<String, u64> {
    let entry = |line: &str| {
        let (keys, rest) = line.strip_prefix('{')?.split_once('}')?;
        let key = keys.split_once(':')?.1.trim().to_owned();
        let count = rest.trim().strip_prefix("hitcount:")?.trim().parse().ok()?;
        Some((key, count))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_lines_become_counts() {
        let text =
            "# event histogram\n\n{ reason:          2 } hitcount:        573\n\nTotals:\n    Hits: 573\n";
        assert_eq!(parse(text), BTreeMap::from([("2".to_owned(), 573)]));
    }
}

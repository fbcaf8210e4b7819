//! Counting exits and ioctls by the host's own tracepoints.

use std::collections::BTreeMap;

use anyhow::Result;

use super::counts::Counts;
use crate::shell::Shell;

/// What is counted by what.
#[derive(Clone, Copy)]
pub struct Histogram {
    event: &'static str,
    key: &'static str,
    /// What is left out, in the tracer's own words; empty for nothing.
    filter: &'static str,
    /// In the report.
    name: &'static str,
}

const fn histogram(
    event: &'static str,
    key: &'static str,
    filter: &'static str,
    name: &'static str,
) -> Histogram {
    Histogram {
        event,
        key,
        filter,
        name,
    }
}

/// Who measures makes ioctls too.
const NOT_OURS: &str = "comm != \"lab\" && comm != \"bash\" && comm != \"sh\" && comm != \"strait-bench\"";

const USERSPACE_EXITS: Histogram = histogram("kvm/kvm_userspace_exit", "reason", "", "userspace_exits");
const KVM_EXITS: Histogram = histogram("kvm/kvm_exit", "exit_reason", "", "kvm_exits");
const IOCTLS: Histogram = histogram("syscalls/sys_enter_ioctl", "cmd", NOT_OURS, "ioctls");

/// A guest from its start to its end.
pub const BOOT: &[Histogram] = &[
    USERSPACE_EXITS,
    KVM_EXITS,
    histogram("kvm/kvm_pio", "port", "", "pio_ports"),
    IOCTLS,
];

/// A guest at work; writes by their address show what its virtual IOMMU is asked.
pub const WORK: &[Histogram] = &[
    USERSPACE_EXITS,
    KVM_EXITS,
    histogram("kvm/kvm_mmio", "gpa.hex", "type == 2", "writes"),
    IOCTLS,
];

/// What is asked of the host's kernel and what it answers, 0 for most.
pub const CALLS: &[Histogram] = &[
    IOCTLS,
    histogram("syscalls/sys_exit_ioctl", "ret", NOT_OURS, "answers"),
];

/// What interrupts ask of the host's kernel.
pub const VECTORS: &[Histogram] = &[
    IOCTLS,
    histogram(SET_IRQS.0, "index", "cmd == 0x3b6e", "set_irqs"),
];

/// Mappings for DMA by their first address.
pub const MAPPINGS: &[Histogram] = &[histogram(DMA_MAP.0, "iova.hex", "cmd == 0x3b71", "mappings")];

/// Events at the entry of ioctl, with how they are made. The system call's own arguments are in the
/// registers that its argument points to: the request, and where a `vfio_iommu_type1_dma_map` or a
/// `vfio_irq_set` is (linux/vfio.h).
const DMA_MAP: (&str, &str) = (
    "kprobes/dma_map",
    "p:dma_map __x64_sys_ioctl cmd=+0x68(%di):u32 iova=+u16(+0x60(%di)):u64",
);
const SET_IRQS: (&str, &str) = (
    "kprobes/set_irqs",
    "p:set_irqs __x64_sys_ioctl cmd=+0x68(%di):u32 index=+u8(+0x60(%di)):u32",
);

const TRACING: &str = "/sys/kernel/tracing";

/// Histograms that count from now on. KVM's own counters in debugfs are lost with the VM.
pub struct Trace<'a> {
    shell: &'a dyn Shell,
    histograms: &'static [Histogram],
}

impl<'a> Trace<'a> {
    /// Starts from zero.
    pub fn start(shell: &'a dyn Shell, histograms: &'static [Histogram]) -> Result<Self> {
        let probes: String = histograms.iter().filter_map(Histogram::probe).collect();
        let triggers: String = histograms.iter().map(|histogram| histogram.set("")).collect();
        let trace = Self { shell, histograms };
        shell.sh(&format!("set -e\n{probes}{triggers}"))?;
        Ok(trace)
    }

    /// Reads the counts and stops counting.
    pub fn finish(self) -> Result<Counts> {
        let read = |histogram: &Histogram| format!("cat {TRACING}/events/{}/hist\n", histogram.event);
        let script: String = self.histograms.iter().map(read).collect();
        // All at once, so that no histogram counts longer than another by a request's way.
        let text = self.shell.sh(&script)?;
        let parts = text.split("# event histogram").skip(1).map(parse);
        let counted = self.histograms.iter().zip(parts).map(|(histogram, mut keys)| {
            if histogram.key == "cmd" {
                keys.retain(|key, _| is_of_a_vmm(key));
            }
            (histogram.name.to_owned(), keys)
        });
        Ok(Counts::new(counted))
    }
}

/// Whether an ioctl is one of KVM or VFIO, by its type: whatever else runs on the host makes others.
fn is_of_a_vmm(key: &str) -> bool {
    let kind = key.parse::<u64>().map(|command| command >> 8 & 0xff);
    matches!(kind, Ok(0xae | 0x3b))
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        let script: String = self
            .histograms
            .iter()
            .map(|histogram| histogram.set("!"))
            .collect();
        let _ = self.shell.sh(&format!("{script}true"));
    }
}

impl Histogram {
    /// A line that sets the trigger, or with `!` removes it.
    fn set(&self, mark: &str) -> String {
        let Self {
            event, key, filter, ..
        } = self;
        let condition = match filter.is_empty() {
            true => String::new(),
            false => format!(" if {filter}"),
        };
        format!("echo '{mark}hist:keys={key}:size=4096{condition}' > {TRACING}/events/{event}/trigger\n")
    }

    /// A line that makes the event, where it is none of the kernel's own.
    fn probe(&self) -> Option<String> {
        let (event, probe) = [DMA_MAP, SET_IRQS]
            .into_iter()
            .find(|(event, _)| *event == self.event)?;
        Some(format!(
            "[ -e {TRACING}/events/{event} ] || echo '{probe}' >> {TRACING}/kprobe_events\n"
        ))
    }
}

/// How long guests stand still while the VMM answers an access to memory: from the exit to user space to the
/// next entry of the guest by the same thread.
pub struct Stopwatch<'a> {
    shell: &'a dyn Shell,
}

/// An event that carries the difference of two others' times, with where it comes from.
const AWAY: &str = "strait_away u64 us";
const TIMES: [(&str, &str); 3] = [
    // Nothing that a VMM does takes so long: the machine did something else.
    ("synthetic/strait_away", "hist:keys=us.log2:vals=us if us < 2000"),
    (
        "kvm/kvm_userspace_exit",
        "hist:keys=common_pid:left=common_timestamp.usecs if reason == 6",
    ),
    (
        "kvm/kvm_entry",
        "hist:keys=common_pid:away=common_timestamp.usecs-$left:onmatch(kvm.kvm_userspace_exit).trace(strait_away,$away)",
    ),
];

impl<'a> Stopwatch<'a> {
    /// Starts from zero.
    pub fn start(shell: &'a dyn Shell) -> Result<Self> {
        let stopwatch = Self { shell };
        let set = |(event, trigger)| format!("echo '{trigger}' > {TRACING}/events/{event}/trigger\n");
        let triggers: String = TIMES.map(set).concat();
        shell.sh(&format!(
            "set -e\n[ -e {TRACING}/events/{} ] || echo '{AWAY}' >> {TRACING}/synthetic_events\n{triggers}",
            TIMES[0].0
        ))?;
        Ok(stopwatch)
    }

    /// Stops, and returns the mean in microseconds.
    pub fn finish(self) -> Result<f64> {
        let text = self
            .shell
            .sh(&format!("cat {TRACING}/events/{}/hist", TIMES[0].0))?;
        Ok(parse_mean(&text))
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        let remove = |(event, trigger)| format!("echo '!{trigger}' > {TRACING}/events/{event}/trigger\n");
        let mut triggers = TIMES.map(remove);
        // Who uses a variable or an event goes before it.
        triggers.reverse();
        let _ = self.shell.sh(&format!("{}true", triggers.concat()));
    }
}

/// `{ us: ~ 2^6 } hitcount:        10  us:        300`
fn parse_mean(text: &str) -> f64 {
    let entry = |line: &str| {
        let (_, rest) = line.strip_prefix('{')?.split_once('}')?;
        let (hits, sum) = rest.trim().strip_prefix("hitcount:")?.split_once("us:")?;
        Some((hits.trim().parse::<f64>().ok()?, sum.trim().parse::<f64>().ok()?))
    };
    let (hits, sum) = text
        .lines()
        .filter_map(entry)
        .fold((0.0, 0.0), |(hits, sum), (more, us)| (hits + more, sum + us));
    if hits > 0.0 { sum / hits } else { 0.0 }
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
    fn times_of_all_sizes_have_one_mean() {
        let text = "{ us: ~ 2^4 } hitcount:  30  us:  100\n{ us: ~ 2^5 } hitcount: 10  us: 300\n\nTotals:\n";
        assert!((parse_mean(text) - 10.0).abs() < f64::EPSILON);
    }

    #[test]
    fn ioctls_of_terminals_and_screens_are_nobodys_exits() {
        // KVM_RUN, VFIO_IOMMU_MAP_DMA, TCGETS.
        assert_eq!(["44672", "15217", "21505"].map(is_of_a_vmm), [true, true, false]);
    }

    #[test]
    fn histogram_lines_become_counts() {
        let text =
            "# event histogram\n\n{ reason:          2 } hitcount:        573\n\nTotals:\n    Hits: 573\n";
        assert_eq!(parse(text), BTreeMap::from([("2".to_owned(), 573)]));
    }
}

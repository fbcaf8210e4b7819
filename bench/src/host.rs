//! What a host is, and what on it makes figures doubtful.

use crate::report::Report;

/// Weaknesses of CPUs, each a file with what the kernel does against it.
const WEAKNESSES: [&str; 12] = [
    "gather_data_sampling",
    "itlb_multihit",
    "l1tf",
    "mds",
    "meltdown",
    "mmio_stale_data",
    "retbleed",
    "spec_rstack_overflow",
    "spec_store_bypass",
    "spectre_v1",
    "spectre_v2",
    "tsx_async_abort",
];

/// The part of CPU time that others may take before times are doubtful.
const TAKEN: f64 = 0.01;

/// Looks at a host by its files, before and behind the measuring. Who asks knows how a file of it is read, for the
/// host may be another machine; what is not there is not told.
pub struct Look<R> {
    read: R,
    before: Option<Ticks>,
}

impl<R: Fn(&str) -> Option<String>> Look<R> {
    /// Before the first round.
    pub fn before(read: R) -> Self {
        let before = Ticks::sample(&read);
        Self { read, before }
    }

    /// Tells a report what the host is and what is doubtful, behind the last round.
    pub fn tell(&self, report: &mut Report) {
        let cpus = self.cpus();
        let mut facts = vec![
            (
                "CPU",
                cpus.as_ref()
                    .map(|(model, count, _)| format!("{count} x {model}")),
            ),
            ("kernel", self.line("/proc/version")),
            ("kernel's command line", self.line("/proc/cmdline")),
            ("weaknesses mended", self.mended()),
            ("governor", self.governor()),
            ("IOMMU", self.iommu()),
            (
                "transparent large pages",
                self.line("/sys/kernel/mm/transparent_hugepage/enabled"),
            ),
        ];
        for (title, key) in [("memory", "MemTotal:"), ("large pages", "HugePages_Total:")] {
            facts.push((title, self.value("/proc/meminfo", key)));
        }
        let known = facts
            .into_iter()
            .filter_map(|(what, value)| Some((what.to_owned(), value?)));
        report.host.extend(known);
        report
            .warnings
            .extend(self.doubts(cpus.is_some_and(|(.., is_virtual)| is_virtual)));
    }

    fn doubts(&self, is_virtual: bool) -> Vec<String> {
        let mut doubts = Vec::new();
        if is_virtual {
            doubts.push(
                "This host is a virtual machine itself: counts hold elsewhere, times may not.".to_owned(),
            );
        }
        if let Some(governor) = self.governor().filter(|governor| governor != "performance") {
            doubts.push(format!(
                "The governor of this host's CPUs is {governor}: their speed changes meanwhile; `cpupower frequency-set \
                 -g performance` keeps it."
            ));
        }
        if let (Some(before), Some(behind)) = (self.before, Ticks::sample(&self.read)) {
            let stolen = behind.stolen_since(before);
            if stolen > TAKEN {
                doubts.push(format!(
                    "{:.0} % of the CPU time went to other machines (steal): times are doubtful.",
                    stolen * 100.0
                ));
            }
        }
        doubts
    }

    /// Model, number, and whether they are a virtual machine's.
    fn cpus(&self) -> Option<(String, usize, bool)> {
        let text = (self.read)("/proc/cpuinfo")?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim())
        };
        let count = text.lines().filter(|line| line.starts_with("processor")).count();
        let is_virtual = value("flags")?.split(' ').any(|flag| flag == "hypervisor");
        Some((value("model name")?.to_owned(), count, is_virtual))
    }

    fn mended(&self) -> Option<String> {
        let known = WEAKNESSES.iter().filter_map(|name| {
            let says = self.line(&format!("/sys/devices/system/cpu/vulnerabilities/{name}"))?;
            let does = says
                .strip_prefix("Mitigation: ")?
                .split([';', ','])
                .next()?
                .to_owned();
            Some(format!("{name}: {does}"))
        });
        let all: Vec<String> = known.collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn governor(&self) -> Option<String> {
        self.line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    }

    /// By a file that each kind of them has.
    fn iommu(&self) -> Option<String> {
        let kinds = [
            ("Intel VT-d", "/sys/class/iommu/dmar0/intel-iommu/cap"),
            ("AMD-Vi", "/sys/class/iommu/ivhd0/amd-iommu/cap"),
        ];
        let mut there = kinds.iter().filter(|(_, file)| self.line(file).is_some());
        there.next().map(|(kind, _)| (*kind).to_owned())
    }

    fn value(&self, file: &str, key: &str) -> Option<String> {
        let text = (self.read)(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(value.trim().to_owned())
    }

    fn line(&self, file: &str) -> Option<String> {
        let text = (self.read)(file)?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// CPU time of the whole host, in clock ticks since its start.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// The first line of proc(5)'s stat; the eighth number is what a hypervisor took.
    fn sample(read: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let text = read("/proc/stat")?;
        let numbers = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = numbers.take(8).filter_map(|number| number.parse().ok()).collect();
        Some(Self {
            all: ticks.iter().fold(0, |sum, ticks| sum.saturating_add(*ticks)),
            stolen: *ticks.get(7)?,
        })
    }

    fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nmodel \
                           name\t: A CPU\nflags\t\t: fpu hypervisor\n";

    #[test]
    fn a_host_is_told_by_what_it_has() {
        let look = Look::before(|file: &str| match file {
            "/proc/cpuinfo" => Some(CPUINFO.to_owned()),
            "/proc/meminfo" => Some("MemTotal:  2048 kB\nHugePages_Total:  3\n".to_owned()),
            "/sys/devices/system/cpu/vulnerabilities/mds" => {
                Some("Mitigation: Clear CPU buffers; SMT off\n".to_owned())
            }
            "/sys/devices/system/cpu/vulnerabilities/l1tf" => Some("Not affected\n".to_owned()),
            "/sys/class/iommu/dmar0/intel-iommu/cap" => Some("c0\n".to_owned()),
            _ => None,
        });
        let mut report = Report::new("qemu");
        look.tell(&mut report);
        let told: Vec<_> = report
            .host
            .iter()
            .map(|(what, value)| format!("{what}={value}"))
            .collect();
        assert_eq!(
            told,
            [
                "CPU=2 x A CPU",
                "weaknesses mended=mds: Clear CPU buffers",
                "IOMMU=Intel VT-d",
                "memory=2048 kB",
                "large pages=3"
            ]
        );
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert!(report.warnings[0].contains("virtual machine itself"));
    }

    #[test]
    fn a_noisy_host_is_warned_about() {
        let asked = Cell::new(0);
        let look = Look::before(|file: &str| match file {
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor" => Some("powersave\n".to_owned()),
            "/proc/stat" => {
                asked.set(asked.get() + 1);
                let taken = asked.get() * 25;
                Some(format!("cpu  {0} 0 0 0 0 0 0 {taken} 0 0\n", taken * 3))
            }
            _ => None,
        });
        let mut report = Report::new("qemu");
        look.tell(&mut report);
        assert!(report.warnings[0].contains("powersave"), "{:?}", report.warnings);
        assert!(
            report.warnings[1].starts_with("25 % of the CPU time"),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn a_host_that_says_nothing_is_not_doubted() {
        let mut report = Report::new("qemu");
        Look::before(|_: &str| None).tell(&mut report);
        assert!(report.host.is_empty() && report.warnings.is_empty());
    }
}

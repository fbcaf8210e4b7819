//! What a VMM must leave as it found it on the host.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;

/// The first use of VFIO after boot leaves a constant number of pages counted as pinned, whatever
/// the VMM (seen with QEMU too).
const FIRST_USE_PINS: i64 = 12;

/// KVM and VFIO tear down after the process is gone.
const SETTLE_TRIES: u32 = 20;

/// How a new warning is reported. It does not go away by waiting.
const KERNEL_SAYS: &str = "the kernel says: ";

const SCRIPT: &str = r#"
cd /sys/bus/pci/devices
for d in *; do
    driver=none; [ -e $d/driver ] && driver=$(readlink $d/driver)
    read -r override < $d/driver_override
    echo "device $d ${driver##*/} $override"
done
awk '/nr_foll_pin_acquired/ {a=$2} /nr_foll_pin_released/ {r=$2} END {print "pins", a - r}' /proc/vmstat
echo "vfio-interrupts $(grep -c vfio /proc/interrupts)"
echo "vms $(ls /sys/kernel/debug/kvm | grep -c '^[0-9]*-[0-9]*$')"
"#;

/// Pages that are pinned now, for VFIO or anyone else.
pub(crate) fn pinned_pages(agent: &Agent) -> Result<i64> {
    Ok(Leftovers::take(agent)?.pinned_pages)
}

/// A picture of the host, taken before and after a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    /// Driver and `driver_override` of each PCI device.
    devices: BTreeMap<String, String>,
    pinned_pages: i64,
    vfio_interrupts: u64,
    virtual_machines: u64,
    /// Kernel messages of level warning and worse.
    warnings: Vec<String>,
}

impl Leftovers {
    /// Takes the picture.
    pub(crate) fn take(agent: &Agent) -> Result<Self> {
        let mut state = Self::parse(&agent.sh(SCRIPT)?).context("Cannot read the state of the lab host")?;
        state.warnings = warnings(&agent.sh("busybox dmesg -r")?);
        Ok(state)
    }

    /// Takes pictures until one is as `before`, or time is up; says every difference.
    pub(crate) fn changes_since(before: &Self, agent: &Agent) -> Result<Vec<String>> {
        let mut tries = 1;
        loop {
            let changes = before.changes(&Self::take(agent)?);
            let lasting = changes.iter().all(|change| change.starts_with(KERNEL_SAYS));
            if lasting || tries == SETTLE_TRIES {
                return Ok(changes);
            }
            tries += 1;
            sleep(Duration::from_millis(250));
        }
    }

    /// `None` where a part is missing: a check that compares nothing would always pass.
    fn parse(text: &str) -> Option<Self> {
        let has = |key: &str| text.lines().any(|line| line.starts_with(key));
        if !["device ", "pins ", "vfio-interrupts ", "vms "]
            .into_iter()
            .all(has)
        {
            return None;
        }
        let mut state = Self::default();
        for line in text.lines() {
            match line.split_once(' ')? {
                ("device", rest) => {
                    let (bdf, binding) = rest.split_once(' ')?;
                    state.devices.insert(bdf.to_owned(), binding.to_owned());
                }
                ("pins", count) => state.pinned_pages = count.parse().ok()?,
                ("vfio-interrupts", count) => state.vfio_interrupts = count.parse().ok()?,
                ("vms", count) => state.virtual_machines = count.parse().ok()?,
                _ => return None,
            }
        }
        Some(state)
    }

    fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for bdf in self.devices.keys().chain(after.devices.keys()) {
            let (was, is) = (self.devices.get(bdf), after.devices.get(bdf));
            if was != is {
                changes.push(format!("{bdf} has driver and override {is:?}, before {was:?}"));
            }
        }
        let allowed = self.pinned_pages.max(FIRST_USE_PINS);
        if after.pinned_pages > allowed {
            changes.push(format!(
                "{} pages are pinned, before {}",
                after.pinned_pages, self.pinned_pages
            ));
        }
        if after.vfio_interrupts > self.vfio_interrupts {
            changes.push(format!("{} VFIO interrupts are left", after.vfio_interrupts));
        }
        if after.virtual_machines > self.virtual_machines {
            changes.push(format!(
                "{} virtual machines are left in KVM",
                after.virtual_machines
            ));
        }
        let new = after.warnings.iter().filter(|line| !self.warnings.contains(line));
        changes.extend(new.map(|line| format!("{KERNEL_SAYS}{line}")));
        changes.dedup();
        changes
    }
}

/// Raw kernel messages carry their level in front: 4 is a warning.
fn warnings(raw: &str) -> Vec<String> {
    let level = |line: &str| line.strip_prefix('<')?.split_once('>')?.0.parse::<u32>().ok();
    raw.lines()
        .filter(|line| level(line).is_some_and(|level| level % 8 <= 4))
        .filter(|line| !HARMLESS.iter().any(|(words, _reason)| line.contains(words)))
        .map(str::to_owned)
        .collect()
}

/// Warnings that say nothing about the VMM, each with the reason.
const HARMLESS: [(&str, &str); 9] = [
    (
        "is freed from lost interrupt",
        "the lab mends what its emulation lost",
    ),
    (
        "hrtimer: interrupt took",
        "an emulated CPU on a busy machine is held up in its timer interrupt",
    ),
    (
        "attempted to set invalid MAC filter",
        "igb does not take the multicast filters that igbvf asks for",
    ),
    (
        ": Reset adapter",
        "the host's igb starts anew when virtual functions are created, whatever its interface is called by then",
    ),
    (
        "unlocked secondary bus reset",
        "the kernel's own reset of a device behind a bridge, on whose lock its developers work",
    ),
    (
        "Power-on or device reset occurred",
        "a USB stick tells that its controller was reset while a guest had it",
    ),
    ("clocksource", "an emulated CPU on a busy machine misses ticks"),
    (
        "Unhandled WRMSR(0xc001",
        "every Linux guest probes the performance counters of AMD CPUs, which TCG's lack",
    ),
    (
        "Unhandled RDMSR(0xc001",
        "every Linux guest probes the performance counters of AMD CPUs, which TCG's lack",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A state of these lines, the other parts as on an idle host.
    fn state(lines: &str) -> Leftovers {
        let idle = "device 0000:02:00.0 nvme (null)\npins 12\nvfio-interrupts 0\nvms 0\n";
        Leftovers::parse(&format!("{idle}{lines}")).expect("a readable state")
    }

    #[test]
    fn a_missing_part_is_no_state() {
        assert_eq!(Leftovers::parse("device 0000:02:00.0 nvme (null)\nvms 0\n"), None);
    }

    #[test]
    fn driver_left_on_vfio_is_a_change() {
        let before = state("device 0000:01:00.0 igb (null)\n");
        let after = state("device 0000:01:00.0 vfio-pci vfio-pci\n");
        assert_eq!(before.changes(&after).len(), 1);
        assert!(before.changes(&before).is_empty());
    }

    #[test]
    fn pins_may_rise_by_first_use_only() {
        let unused = state("pins 0\n");
        let used = state("pins 12\n");
        let leaking = state("pins 13\n");
        assert!(unused.changes(&used).is_empty());
        assert_eq!(used.changes(&leaking).len(), 1);
    }

    #[test]
    fn left_interrupts_machines_and_warnings_are_changes() {
        let before = state("");
        let mut after = state("vfio-interrupts 3\nvms 1\n");
        after.warnings = warnings("<6>[1.0] fine\n<4>[2.0] WARNING: something\n");
        assert_eq!(before.changes(&after).len(), 3);
    }
}

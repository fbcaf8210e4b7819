//! `strait ctl stats`.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::connection::Connection;
use super::description::{bytes, text};
use super::show::pretty;
use super::trouble::Trouble;
use crate::cli::screen::{Screen, Tone};

/// How long it is from one look at the numbers to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// The number that a ROM has among the BARs.
const ROM: u64 = 6;

/// Show what was counted of a guest.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Show each second what was new in it, until the guest ends or you do.
    #[arg(long, short)]
    watch: bool,
    /// For programs: all numbers, of each vCPU apart. With --watch a line each second.
    #[arg(long)]
    json: bool,
}

/// The numbers of a guest at some moment.
struct Numbers {
    /// KVM's, which only grow, of all vCPUs together; those of the exits by their reasons among them.
    vcpus: BTreeMap<String, u64>,
    /// KVM's of the virtual machine, which grow or go up and down.
    vm: BTreeMap<String, u64>,
    /// Milliseconds of CPU time of each thread.
    threads: BTreeMap<String, u64>,
    /// Bytes of memory.
    memory: BTreeMap<&'static str, u64>,
    /// What was counted of each passed device, in the order in which it is told.
    devices: Vec<(String, u64)>,
    /// What the guest asked of its IOMMU, as text.
    iommu: String,
}

impl StatsArgs {
    pub(super) fn run(self, guest: &mut Connection, screen: &mut Screen<'_>) -> Result<(), Trouble> {
        let first = guest.execute("x-query-strait", Value::Null)?;
        match (self.watch, self.json) {
            (false, true) => Ok(screen.line(pretty(&counted(first)))?),
            (false, false) => Numbers::of(&first).show(screen),
            (true, json) => match watch(guest, first, json, screen) {
                // As if it had been told to end.
                Err(Trouble::Gone(_)) => Ok(()),
                ended => ended,
            },
        }
    }
}

/// The part of an answer that is counted.
fn counted(mut strait: Value) -> Value {
    let keys = [
        "uptime-seconds",
        "locked-bytes",
        "process",
        "kvm",
        "devices",
        "iommu",
    ];
    let members = keys.map(|key| (key.to_owned(), strait[key].take()));
    Value::Object(members.into_iter().collect())
}

fn watch(guest: &mut Connection, first: Value, json: bool, screen: &mut Screen<'_>) -> Result<(), Trouble> {
    let mut before = (Instant::now(), first);
    loop {
        if json {
            screen.line(counted(before.1.clone()))?;
        }
        sleep(PERIOD);
        let now = (Instant::now(), guest.execute("x-query-strait", Value::Null)?);
        if !json {
            let passed = now.0.duration_since(before.0);
            Numbers::of(&now.1).show_change(&Numbers::of(&before.1), passed, screen)?;
        }
        before = now;
    }
}

impl Numbers {
    fn of(strait: &Value) -> Self {
        let kvm = &strait["kvm"];
        let vcpus = kvm["vcpus"].as_array().into_iter().flatten();
        let process = &strait["process"];
        let threads = process["threads"].as_array().into_iter().flatten();
        let memory = [
            ("resident", &process["resident-bytes"]),
            ("private", &process["private-bytes"]),
            ("locked", &strait["locked-bytes"]),
        ];
        Self {
            vcpus: sums(vcpus.map(|vcpu| &vcpu["counts"])),
            vm: sums([&kvm["vm"]["counts"], &kvm["vm"]["levels"]].into_iter()),
            threads: times(threads),
            memory: memory
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_u64()?)))
                .collect(),
            devices: devices(&strait["devices"]),
            iommu: strait["iommu"].as_str().unwrap_or_default().to_owned(),
        }
    }

    fn show(&self, screen: &mut Screen<'_>) -> Result<(), Trouble> {
        let count = |(name, value): (&String, &u64)| (name.clone(), value.to_string());
        let is_counted = |(_, value): &(&String, &u64)| **value > 0;
        let vcpus = self.vcpus.iter().filter(is_counted).map(count);
        section(screen, "vCPUs together", vcpus.collect())?;
        let vm = self.vm.iter().filter(is_counted).map(count);
        section(screen, "virtual machine", vm.collect())?;
        let devices = self.devices.iter().filter(|(_, count)| *count > 0);
        let devices = devices.map(|(name, count)| (name.clone(), count.to_string()));
        section(screen, "passed devices", devices.collect())?;
        let threads = self.threads.iter();
        let seconds = |time: u64| format!("{}.{:02} s", time / 1000, time % 1000 / 10);
        let threads = threads.map(|(name, time)| (name.clone(), seconds(*time)));
        section(screen, "CPU time of threads", threads.collect())?;
        let memory = self.memory.iter();
        let memory = memory.map(|(name, count)| ((*name).to_owned(), bytes(*count)));
        section(screen, "memory", memory.collect())?;
        for line in self.iommu.lines() {
            screen.line(line.replace(char::is_control, " "))?;
        }
        Ok(())
    }

    /// What is new since `before`, `passed` ago, for a second.
    fn show_change(&self, before: &Self, passed: Duration, screen: &mut Screen<'_>) -> Result<(), Trouble> {
        let per_second = |new: u64| (new as f64 / passed.as_secs_f64()).round() as u64;
        let changes = self.vcpus.iter().filter_map(|(name, value)| {
            let new = per_second(value.saturating_sub(before.vcpus.get(name).copied().unwrap_or(0)));
            (new > 0).then(|| (name.clone(), format!("{new}/s")))
        });
        let devices = self.devices.iter().filter_map(|(name, count)| {
            let mut known = before.devices.iter();
            let then = known
                .find(|(other, _)| other == name)
                .map_or(0, |(_, count)| *count);
            let new = per_second(count.saturating_sub(then));
            (new > 0).then(|| (name.clone(), format!("{new}/s")))
        });
        let busy = self.threads.iter().filter_map(|(name, time)| {
            let new = per_second(time.saturating_sub(before.threads.get(name).copied().unwrap_or(0)));
            (new > 0).then(|| (format!("CPU of {name}"), format!("{} %", new / 10)))
        });
        let rows: Vec<(String, String)> = changes.chain(devices).chain(busy).collect();
        match rows.is_empty() {
            true => Ok(screen.line("nothing new")?),
            false => section(screen, "in a second", rows),
        }
    }
}

/// Interrupts of each vector, and accesses to each BAR that trapped.
fn devices(listed: &Value) -> Vec<(String, u64)> {
    let parts = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of_one = |device: &Value| {
        let id = text(&device["id"]).unwrap_or_default();
        let interrupt = |one: &Value| {
            let kind = text(&one["kind"])?;
            Some((
                format!("{id}: {kind} {}", one["vector"].as_u64()?),
                one["count"].as_u64()?,
            ))
        };
        let bar = |one: &Value| {
            let name = match one["bar"].as_u64()? {
                ROM => "the ROM".to_owned(),
                index => format!("BAR {index}"),
            };
            Some((
                format!("{id}: trapped accesses to {name}"),
                one["trapped"].as_u64()?,
            ))
        };
        let interrupts: Vec<_> = parts(&device["interrupts"])
            .iter()
            .filter_map(interrupt)
            .collect();
        let bars = parts(&device["bars"]);
        interrupts
            .into_iter()
            .chain(bars.iter().filter_map(bar))
            .collect::<Vec<_>>()
    };
    parts(listed).iter().flat_map(of_one).collect()
}

/// Milliseconds by the names of threads, of which several may have the same.
fn times<'a>(threads: impl Iterator<Item = &'a Value>) -> BTreeMap<String, u64> {
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for thread in threads {
        let time = times
            .entry(text(&thread["name"]).unwrap_or_default())
            .or_default();
        *time = time.saturating_add(thread["cpu-milliseconds"].as_u64().unwrap_or(0));
    }
    times
}

/// Sums by name.
fn sums<'a>(all: impl Iterator<Item = &'a Value>) -> BTreeMap<String, u64> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (name, value) in all.filter_map(Value::as_object).flatten() {
        let sum = sums.entry(name.replace(char::is_control, " ")).or_default();
        *sum = sum.saturating_add(value.as_u64().unwrap_or(0));
    }
    sums
}

fn section(screen: &mut Screen<'_>, heading: &str, rows: Vec<(String, String)>) -> Result<(), Trouble> {
    if rows.is_empty() {
        return Ok(());
    }
    screen.line(screen.paint(Tone::Heading, heading))?;
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        screen.line(format!("  {name:width$}  {value:>12}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn strait(exits: u64, time: u64) -> Value {
        json!({
            "locked-bytes": 0, "iommu": "",
            "process": {"resident-bytes": 5 << 20, "threads": [{"name": "vcpu0", "cpu-milliseconds": time}]},
            "kvm": {
                "vm": {"counts": {"mmu_recycled": 0}, "levels": {"pages_4k": 12}},
                "vcpus": [
                    {"counts": {"exits": exits, "io_exits": 0}, "levels": {"guest_mode": 1}},
                    {"counts": {"exits": 5, "io_exits": 0}, "levels": {}},
                ],
            },
        })
    }

    fn shown(show: impl FnOnce(&mut Screen<'_>) -> Result<(), Trouble>) -> String {
        let mut out = Vec::new();
        show(&mut Screen::plain(&mut out)).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_was_counted_is_summed_and_zeros_are_left_out() {
        let numbers = Numbers::of(&strait(7, 1_230));
        assert_eq!(
            shown(|screen| numbers.show(screen)),
            "vCPUs together\n  exits            12\nvirtual machine\n  pages_4k            12\n\
             CPU time of threads\n  vcpu0        1.23 s\nmemory\n  locked           0 KiB\n  resident         5 MiB\n"
        );
    }

    #[test]
    fn what_is_new_is_told_for_a_second() {
        let (before, now) = (Numbers::of(&strait(7, 0)), Numbers::of(&strait(207, 1_000)));
        let change = |passed| shown(|screen| now.show_change(&before, passed, screen));
        let text = change(Duration::from_secs(2));
        assert_eq!(
            text,
            "in a second\n  exits                100/s\n  CPU of vcpu0          50 %\n"
        );
        let still = shown(|screen| now.show_change(&now, PERIOD, screen));
        assert_eq!(still, "nothing new\n");
    }

    #[test]
    fn what_devices_did_is_told_by_their_names() {
        let strait = |count: u64| {
            json!({"devices": [{
                "id": "net0",
                "interrupts": [{"kind": "msix", "vector": 0, "count": count}, {"kind": "msix", "vector": 1, "count": 0}],
                "bars": [{"bar": 0, "trapped": 3}, {"bar": 6, "trapped": 1}],
            }]})
        };
        let (before, now) = (Numbers::of(&strait(5)), Numbers::of(&strait(9)));
        assert_eq!(
            shown(|screen| now.show(screen)),
            "passed devices\n  net0: msix 0                                  9\n  \
             net0: trapped accesses to BAR 0               3\n  net0: trapped accesses to the ROM             1\n"
        );
        assert_eq!(
            shown(|screen| now.show_change(&before, PERIOD, screen)),
            "in a second\n  net0: msix 0           4/s\n"
        );
    }

    #[test]
    fn a_guest_without_such_numbers_shows_none() {
        let numbers = Numbers::of(&json!({"kvm": null}));
        assert_eq!(shown(|screen| numbers.show(screen)), "");
        assert_eq!(counted(json!({"name": "web", "kvm": 1}))["kvm"], 1);
    }
}

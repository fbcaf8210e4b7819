//! What was counted of a machine, for those who ask: by KVM of the guest, by the host of this process.

mod interrupts;

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::kvm::vcpu::Vcpu;
use crate::kvm::{Statistics, Vm};

pub(super) use interrupts::Interrupts;

/// What a tick of /proc/PID/stat is in milliseconds: USER_HZ is 100 for all programs (proc_pid_stat(5)).
const TICK_MS: u64 = 10;

/// KVM's numbers of the guest. They are asked for by descriptors of their own, so that no vCPU stops for it.
pub(super) struct KvmNumbers {
    vm: Statistics,
    /// Those of each vCPU, in the order of their ids.
    vcpus: Vec<Statistics>,
}

impl KvmNumbers {
    /// Those of this machine, if its kernel has any.
    pub(super) fn open(vm: &Vm, vcpus: &[Vcpu]) -> Option<Self> {
        let vcpus = vcpus.iter().map(Vcpu::statistics);
        let opened = vm.statistics().and_then(|vm| {
            Ok(Self {
                vm,
                vcpus: vcpus.collect::<io::Result<_>>()?,
            })
        });
        opened
            .inspect_err(|error| log::debug!("KVM tells no numbers: {error}"))
            .ok()
    }

    /// Counts, which only grow, apart from what goes up and down.
    pub(super) fn tell(&self) -> Value {
        json!({
            "vm": numbers(&self.vm),
            "vcpus": self.vcpus.iter().map(numbers).collect::<Vec<Value>>(),
        })
    }
}

fn numbers(statistics: &Statistics) -> Value {
    let mut counts = Map::new();
    let mut levels = Map::new();
    for number in statistics.numbers().unwrap_or_default() {
        let kind = if number.is_count { &mut counts } else { &mut levels };
        kind.insert(number.name.to_owned(), json!(number.value));
    }
    json!({"counts": counts, "levels": levels})
}

/// Memory and time that this process takes, and how its time is spread over its threads.
pub(super) fn of_this_process() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let threads = threads.filter_map(|thread| cpu_time(&thread.path()));
    json!({
        "resident-bytes": kib(&status, "VmRSS:"),
        "private-bytes": kib(&status, "RssAnon:"),
        "threads": threads
            .map(|(name, time)| json!({"name": name, "cpu-milliseconds": time}))
            .collect::<Vec<Value>>(),
    })
}

/// What counts towards RLIMIT_MEMLOCK, as VFIO's mappings do.
pub(super) fn locked_bytes() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmLck:")
}

/// A number of /proc/PID/status, in bytes.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// The name of a thread and the milliseconds that it ran, for the guest and the kernel, too.
fn cpu_time(folder: &Path) -> Option<(String, u64)> {
    parse(&fs::read_to_string(folder.join("stat")).ok()?)
}

/// The name is in brackets and may hold some; behind it are the state and, as the 12th and 13th, the ticks in user mode and
/// in the kernel. The guest's are among the former.
fn parse(stat: &str) -> Option<(String, u64)> {
    let (start, rest) = stat.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((name.to_owned(), (ticks()? + ticks()?) * TICK_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_with_its_time() {
        let stat = "77 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 3 0";
        assert_eq!(parse(stat), Some(("a) b (c".to_owned(), 1_500)));
        assert_eq!(parse("77 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let told = of_this_process();
        assert!(told["resident-bytes"].as_u64().expect("a number") > 0);
        let name = told["threads"][0]["name"].as_str().expect("a name");
        assert!(!name.is_empty());
    }
}

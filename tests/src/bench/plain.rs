//! A guest with a NIC: its start to its end, its NIC under load, and what an interrupt vector costs.

use std::slice::Iter;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Bench;
use super::counts::{Counts, all_keys, median};
use super::figures::Figures;
use super::names;
use super::process::Process;
use super::start::{self, Boot};
use super::table::{Asked, Table};
use super::traffic::{self, Traffic};
use super::vectors::{self, SetUp};
use crate::lab::Assigned;
use crate::lab::devices::NIC;

/// How many keys of a histogram are shown; the file has all.
const SHOWN: usize = 8;

/// All of one VMM.
#[derive(Debug, Default, Serialize)]
pub(super) struct Runs {
    process: Option<Process>,
    boots: Vec<Boot>,
    streams: Vec<Traffic>,
    vectors: Vec<SetUp>,
}

pub(super) fn measure(bench: &Bench<'_>, figures: &mut Figures<Runs>) -> Result<()> {
    let nic = Assigned::bind(bench.agent, NIC.at())?;
    for vmm in bench.vmms {
        // Also the warm-up: it reads the files into the host's cache.
        let process = start::look(bench, *vmm, &nic.bdf)
            .with_context(|| format!("Looking at {} failed", vmm.name()))?;
        figures.of(*vmm).process = Some(process);
    }
    bench.rounds("boot", |vmm| {
        let boot = start::measure(bench, vmm, &nic.bdf)?;
        let shown = format!("{:.2} s", boot.wall_s);
        figures.of(vmm).boots.push(boot);
        Ok(shown)
    })?;
    bench.rounds("streams", |vmm| {
        let traffic = traffic::measure(bench, vmm, &nic.bdf, None)?;
        let shown = traffic.to_string();
        figures.of(vmm).streams.push(traffic);
        Ok(shown)
    })?;
    nic.restore()?;
    for vmm in bench.vmms {
        figures.of(*vmm).vectors = vectors::measure(bench, *vmm)
            .with_context(|| format!("Counting for the vectors of {} failed", vmm.name()))?;
    }
    Ok(())
}

pub(super) fn print(figures: &Figures<Runs>, rounds: u32) {
    let table = figures.table(&format!(
        "Medians of {rounds} rounds: 1 CPU, 512 MiB, igb passed through, start to power-off"
    ));
    table.asked("wall time, s", 2, Asked::RatioAtMost(0.79), |runs| {
        runs.boot(|boot| boot.wall_s)
    });
    table.row("guest uptime at init, s", 2, |runs| runs.boot(|boot| boot.init_s));
    let private = "private memory beyond guest RAM, KiB";
    table.asked(private, 0, Asked::AtMost(8192.0), |runs| {
        runs.process(|process| process.private_kib as f64)
    });
    table.row("threads", 0, |runs| {
        runs.process(|process| process.threads as f64)
    });
    table.row("binary, KiB", 0, |runs| {
        runs.process(|process| process.binary_bytes as f64 / 1024.0)
    });
    let one = "DMA map ioctls for the one region of RAM";
    table.asked(one, 0, Asked::AtMost(1.0), |runs| {
        runs.process(|process| process.ram_maps as f64)
    });
    histogram(
        &table,
        "userspace exits",
        "userspace_exits",
        Asked::AtMost(1250.0),
        names::userspace_exit,
    );
    histogram(&table, "port accesses", "pio_ports", Asked::Shown, names::port);
    histogram(&table, "KVM exits", "kvm_exits", Asked::Shown, names::svm_exit);
    histogram(&table, "ioctls", "ioctls", Asked::Shown, names::ioctl);

    let table = figures.table("igb under load by iperf3, one TCP stream each way");
    let rate = Asked::RatioAtLeast(0.95);
    table.asked("guest sends, Mbit/s", 0, rate, |runs| {
        runs.stream(|traffic| traffic.sent.mbit_s)
    });
    table.row("  Mbit per second of CPU time", 1, |runs| {
        runs.stream(|traffic| traffic.sent.mbit_cpu_s)
    });
    table.asked("guest receives, Mbit/s", 0, rate, |runs| {
        runs.stream(|traffic| traffic.received.mbit_s)
    });
    table.row("  Mbit per second of CPU time", 1, |runs| {
        runs.stream(|traffic| traffic.received.mbit_cpu_s)
    });
    table.row("packets counted over", 0, |runs| {
        runs.stream(|traffic| traffic.sent.packets() + traffic.received.packets())
    });
    let exits = "userspace exits meanwhile";
    table.asked(exits, 0, Asked::AtMost(0.0), |runs| {
        runs.stream(|traffic| {
            let of = |counts: &Counts| counts.total("userspace_exits") as f64;
            of(&traffic.sent.counts) + of(&traffic.received.counts)
        })
    });

    let table = figures.table("ioctls when a guest enables MSI-X with a programmed table (NVMe)");
    for (index, count) in vectors::COUNTS.into_iter().enumerate() {
        let at = move |runs: &Runs, figure: fn(&SetUp) -> u64| {
            runs.vectors
                .get(index)
                .map_or(f64::NAN, |set_up| figure(set_up) as f64)
        };
        let limit = Asked::AtMost(f64::from(count) + 2.0);
        table.asked(&format!("{count} vectors"), 0, limit, |runs| {
            at(runs, SetUp::total)
        });
        table.row("  updates of the route table", 0, |runs| {
            at(runs, |set_up| set_up.routings)
        });
        table.row("  irqfds", 0, |runs| at(runs, |set_up| set_up.irqfds));
        table.row("  VFIO_DEVICE_SET_IRQS", 0, |runs| {
            at(runs, |set_up| set_up.bindings)
        });
        table.row("  besides, for the wire that goes", 0, |runs| {
            at(runs, |set_up| set_up.wire)
        });
    }
}

impl Runs {
    fn process(&self, figure: impl Fn(&Process) -> f64) -> f64 {
        self.process.as_ref().map_or(f64::NAN, figure)
    }

    fn boot(&self, figure: impl Fn(&Boot) -> f64) -> f64 {
        median(self.boots.iter().map(figure))
    }

    fn stream(&self, figure: impl Fn(&Traffic) -> f64) -> f64 {
        median(self.streams.iter().map(figure))
    }
}

/// A histogram of the boots: all of it, then its most frequent keys.
fn histogram(table: &Table<'_, Runs>, title: &str, name: &str, asked: Asked, label: fn(u64) -> String) {
    table.asked(title, 0, asked, |runs| {
        runs.boot(|boot| boot.counts.total(name) as f64)
    });
    let rounds = table
        .both()
        .flat_map(|runs| -> Iter<'_, Boot> { runs.boots.iter() });
    for key in all_keys(rounds.map(|boot| &boot.counts), name)
        .into_iter()
        .take(SHOWN)
    {
        let number = match key.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => key.parse().ok(),
        };
        let text = number.map_or_else(|| key.clone(), label);
        table.row(&format!("  {text}"), 0, |runs| {
            runs.boot(|boot| boot.counts.of(name, &key) as f64)
        });
    }
}

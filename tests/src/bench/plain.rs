//! A guest with a NIC: its start to its end, its NIC under load, and what an interrupt vector costs.

use anyhow::{Context, Result};
use strait_bench::Asked;
use strait_bench::counting::{self, Boot, Counts, FLOOR, Figures, Sheet, least, less, more, svm_exit};

use super::dma_ready::{self, PAGES, Ready};
use super::floor;
use super::hot_add;
use super::probes;
use super::start;
use super::traffic::{self, Stream, Traffic};
use super::vectors::{self, SetUp};
use super::{Bench, Part};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::Assigned;
use crate::lab::devices::NIC;

/// All of one VMM.
#[derive(Debug, Default)]
pub(super) struct Runs {
    starts: counting::Runs,
    /// In the lean machine.
    lean: counting::Runs,
    /// Exits that no VMM can save; of Strait alone.
    floor: Option<u64>,
    /// MiB of a guest whose memory is there for DMA, and how long that took, by its pages.
    ready_mib: u64,
    ready: [Ready; PAGES.len()],
    /// Seconds for a NIC to come.
    hot_adds: Vec<f64>,
    streams: Vec<Traffic>,
    vectors: Vec<SetUp>,
}

pub(super) fn measure(bench: &Bench<'_>, figures: &mut Figures<Runs>) -> Result<()> {
    let nic = Assigned::bind(bench.agent, NIC.at())?;
    for vmm in bench.vmms {
        // Also the warm-up: it reads the files into the host's cache.
        let process = start::look(bench, *vmm, &nic.bdf)
            .with_context(|| format!("Looking at {} failed", vmm.name()))?;
        figures.of(vmm.name()).starts.process = Some(process);
    }
    bench.host.take_program(FLOOR)?;
    if bench.wants(Part::Start) {
        starts(bench, figures, &nic.bdf)?;
    }
    if bench.wants(Part::Dma) {
        until_dma(bench, figures, &nic.bdf)?;
    }
    if bench.wants(Part::HotAdd) {
        bench.rounds("hot add", |vmm| {
            let seconds = hot_add::measure(bench, vmm, &nic.bdf)?;
            figures.of(vmm.name()).hot_adds.push(seconds);
            Ok(format!("{seconds:.2} s"))
        })?;
    }
    if bench.wants(Part::Streams) {
        bench.rounds("streams", |vmm| {
            let traffic = traffic::measure(bench, vmm, &nic.bdf, None)?;
            let shown = traffic.to_string();
            figures.of(vmm.name()).streams.push(traffic);
            Ok(shown)
        })?;
    }
    nic.restore()?;
    if bench.wants(Part::Vectors) {
        for vmm in bench.vmms {
            figures.of(vmm.name()).vectors = vectors::measure(bench, *vmm)
                .with_context(|| format!("Counting for the vectors of {} failed", vmm.name()))?;
        }
    }
    Ok(())
}

/// Starts of each VMM, and in the same rounds what can be had at best.
fn starts(bench: &Bench<'_>, figures: &mut Figures<Runs>, nic: &str) -> Result<()> {
    bench.rounds("boot", |vmm| {
        if vmm == Vmm::Strait {
            let runs = figures.of(vmm.name());
            let launch = probes::like(&GuestConfig::default(), nic);
            runs.starts.floors.measure(&probes::probe(bench), &launch)?;
            let lean = start::measure(bench, vmm, nic, &["--machine", "lean"])?;
            runs.lean.boots.push(lean);
        }
        let boot = start::measure(bench, vmm, nic, &[])?;
        let shown = format!("{:.2} s", boot.wall_s);
        figures.of(vmm.name()).starts.boots.push(boot);
        Ok(shown)
    })?;
    if bench.vmms.contains(&Vmm::Strait) {
        figures.of(Vmm::Strait.name()).floor = Some(floor::measure(bench, nic)?);
    }
    Ok(())
}

fn until_dma(bench: &Bench<'_>, figures: &mut Figures<Runs>, nic: &str) -> Result<()> {
    let ready_mib = dma_ready::size(bench)?;
    dma_ready::warm_up(bench, nic, ready_mib)?;
    for (index, pages) in PAGES.into_iter().enumerate() {
        bench.rounds(&format!("DMA to {ready_mib} MiB of {}", pages.title), |vmm| {
            let runs = figures.of(vmm.name());
            runs.ready_mib = ready_mib;
            if !pages.is_for(vmm) {
                return Ok("is not asked".to_owned());
            }
            let seconds = dma_ready::measure(bench, vmm, nic, pages, ready_mib, &mut runs.ready[index])?;
            Ok(format!("{seconds:.2} s"))
        })?;
    }
    Ok(())
}

pub(super) fn fill(sheet: &mut Sheet<'_, Runs>) {
    counting::Runs::fill(sheet, |runs| &runs.starts, svm_exit);
    let lean = less("lean.wall", "the same in the lean machine", "s");
    sheet.row(lean, |runs| runs.lean(|boot| Some(boot.wall_s)));
    let lean = less("lean.userspace", "exits to user space in the lean machine", "");
    sheet.row(lean, |runs| {
        runs.lean(|boot| Some(boot.counts.as_ref()?.total("userspace_exits") as f64))
    });
    for id in ["exits.userspace", "lean.userspace"] {
        sheet.floor(id, floor::ABOUT, |runs| runs.floor.map(|count| count as f64));
    }
    dma_ready(sheet);
    sheet.ask("start.wall", Asked::RatioAtMost(0.79));
    sheet.ask("exits.userspace", Asked::AtMost(1150.0));
    sheet.ask("process.private", Asked::AtMost(8192.0));
    sheet.ask("process.ram-maps", Asked::AtMost(1.0));
    let come = "device_add to the driver bound in the guest, without the device's reset";
    let come = less("hotplug.add", come, "s").asked(Asked::RatioAtMost(0.5));
    sheet.row(come, |runs| runs.hot_adds.clone());
    network(sheet);
    for (index, count) in vectors::COUNTS.into_iter().enumerate() {
        enabled(sheet, index, count);
    }
}

/// From the start until a device may reach all memory.
fn dma_ready(sheet: &mut Sheet<'_, Runs>) {
    let memory_mib = sheet.of("strait", |runs| runs.ready_mib).unwrap_or_default();
    for (index, pages) in PAGES.into_iter().enumerate() {
        let id = format!("dma.{}", pages.name);
        let title = format!(
            "start of the VMM until a device may reach {memory_mib} MiB in {}",
            pages.title
        );
        sheet.row(less(&id, &title, "s"), |runs| runs.ready[index].vmm_s.clone());
        sheet.floor(&id, dma_ready::FLOOR, |runs| least(&runs.ready[index].floor_s));
    }
}

fn network(sheet: &mut Sheet<'_, Runs>) {
    let rate = Asked::RatioAtLeast(0.95);
    stream(sheet, "sent", "guest sends by igb", rate, |traffic| &traffic.sent);
    stream(sheet, "received", "guest receives by igb", rate, |traffic| {
        &traffic.received
    });
    let locked = less("process.locked", "locked memory while the guest sends", "KiB");
    sheet.row(locked, |runs| runs.stream(|traffic| traffic.locked_kib as f64));
    let exits = less("network.exits", "exits to user space while packets flow", "");
    sheet.row(exits.asked(Asked::AtMost(0.0)), |runs| {
        runs.stream(|traffic| {
            let of = |counts: &Counts| counts.total("userspace_exits") as f64;
            of(&traffic.sent.counts) + of(&traffic.received.counts)
        })
    });
}

/// One TCP stream of iperf3.
fn stream(sheet: &mut Sheet<'_, Runs>, id: &str, title: &str, asked: Asked, way: fn(&Traffic) -> &Stream) {
    let rate = more(&format!("network.{id}"), title, "Mbit/s").asked(asked);
    sheet.row(rate, |runs| runs.stream(|traffic| way(traffic).mbit_s));
    let beside = format!("{title}, for each second of CPU time");
    sheet.row(more(&format!("network.{id}-by-cpu"), &beside, "Mbit"), |runs| {
        runs.stream(|traffic| way(traffic).mbit_cpu_s)
    });
    let packets = format!("{title}: packets that were counted over");
    sheet.row(more(&format!("network.{id}-packets"), &packets, ""), |runs| {
        runs.stream(|traffic| way(traffic).packets())
    });
}

/// What it takes when a guest enables so many vectors at once.
fn enabled(sheet: &mut Sheet<'_, Runs>, index: usize, count: u16) {
    let id = format!("vectors.{count}");
    let title = format!("ioctls when a guest enables {count} vectors of a programmed MSI-X table");
    let all = less(&id, &title, "").asked(Asked::AtMost(f64::from(count) + 2.0));
    sheet.row(all, |runs| runs.vectors(index, SetUp::total));
    let mut part = |name: &str, title: &str, figure: fn(&SetUp) -> u64| {
        let part = less(&format!("{id}.{name}"), title, "").part_of(&id);
        sheet.row(part, |runs| runs.vectors(index, figure));
    };
    part("routings", "updates of the route table", |set_up| set_up.routings);
    part("irqfds", "irqfds", |set_up| set_up.irqfds);
    part("bindings", "VFIO_DEVICE_SET_IRQS", |set_up| set_up.bindings);
    let wire = format!("besides, for the wire that goes before {count} vectors");
    sheet.row(less(&format!("vectors.{count}-wire"), &wire, ""), |runs| {
        runs.vectors(index, |set_up| set_up.wire)
    });
}

impl Runs {
    fn lean(&self, figure: impl Fn(&Boot) -> Option<f64>) -> Vec<f64> {
        self.lean.boots.iter().filter_map(figure).collect()
    }

    fn stream(&self, figure: impl Fn(&Traffic) -> f64) -> Vec<f64> {
        self.streams.iter().map(figure).collect()
    }

    fn vectors(&self, index: usize, figure: impl Fn(&SetUp) -> u64) -> Vec<f64> {
        self.vectors
            .get(index)
            .map(|set_up| figure(set_up) as f64)
            .into_iter()
            .collect()
    }
}

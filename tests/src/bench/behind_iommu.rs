//! A guest with an IOMMU of its own: strict traffic, what mappings cost the VMM, and a guest of the guest.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Bench;
use super::counts::median;
use super::figures::Figures;
use super::inner::{self, Nested};
use super::large_maps::{self, Bulk, ONE_GIB, Size, TWO_MIB};
use super::locked::{self, Locked};
use super::table::{Asked, Table};
use super::traffic::{self, Stream, Traffic};
use super::{MAP, UNMAP};
use crate::guest::Vmm;
use crate::lab::Assigned;
use crate::lab::devices::NIC;

/// An invalidation for each unmapping, and none put off.
const STRICT: &str = "intel_iommu=on,strict";

/// All of one VMM.
#[derive(Debug, Default, Serialize)]
pub(super) struct Runs {
    strict: Vec<Traffic>,
    /// By size.
    bulk: BTreeMap<&'static str, Bulk>,
    locked: Vec<Locked>,
    /// The same VMM in the guest.
    nested: Vec<Nested>,
    /// QEMU in the guest.
    nested_qemu: Vec<Nested>,
}

pub(super) fn measure(bench: &Bench<'_>, figures: &mut Figures<Runs>) -> Result<()> {
    for vmm in bench.vmms {
        let name = vmm.name();
        bulk_maps(figures, bench, *vmm).with_context(|| format!("{name}: bulk maps failed"))?;
        figures.of(*vmm).locked =
            locked::measure(bench, *vmm).with_context(|| format!("{name}: locked memory failed"))?;
    }
    let nic = Assigned::bind(bench.agent, NIC.at())?;
    bench.rounds("strict streams", |vmm| {
        let traffic = traffic::measure(bench, vmm, &nic.bdf, Some(STRICT))?;
        let shown = traffic.to_string();
        figures.of(vmm).strict.push(traffic);
        Ok(shown)
    })?;
    bench.rounds("the same VMM nested", |vmm| {
        let nested = inner::measure(bench, vmm, vmm, &nic.bdf)?;
        let shown = format!("{:.1} s", nested.wall_s);
        if vmm == Vmm::Qemu {
            figures.of(vmm).nested_qemu.push(nested.clone());
        }
        figures.of(vmm).nested.push(nested);
        Ok(shown)
    })?;
    if bench.vmms.contains(&Vmm::Strait) {
        for round in 1..=bench.rounds {
            let nested = inner::measure(bench, Vmm::Strait, Vmm::Qemu, &nic.bdf)
                .context("QEMU in a guest of strait failed")?;
            eprintln!(
                "  QEMU in a guest of strait, round {round}: {:.1} s",
                nested.wall_s
            );
            figures.of(Vmm::Strait).nested_qemu.push(nested);
        }
    }
    nic.restore()
}

fn bulk_maps(figures: &mut Figures<Runs>, bench: &Bench<'_>, vmm: Vmm) -> Result<()> {
    for size in [TWO_MIB, ONE_GIB] {
        let bulk = large_maps::measure(bench, vmm, size).with_context(|| size.name)?;
        eprintln!("  {} mapped at once, {}: {bulk}", size.name, vmm.name());
        figures.of(vmm).bulk.insert(size.name, bulk);
    }
    Ok(())
}

pub(super) fn print(figures: &Figures<Runs>, rounds: u32) {
    let table = figures.table(&format!(
        "Medians of {rounds} rounds: 1 CPU, 512 MiB, igb behind the guest's IOMMU, {STRICT}"
    ));
    table.asked("guest sends, Mbit/s", 0, Asked::RatioAtLeast(1.5), |runs| {
        runs.strict(|traffic| traffic.sent.mbit_s)
    });
    table.row("  Mbit per second of CPU time", 1, |runs| {
        runs.strict(|traffic| traffic.sent.mbit_cpu_s)
    });
    table.row("guest receives, Mbit/s", 0, |runs| {
        runs.strict(|traffic| traffic.received.mbit_s)
    });
    table.row("  Mbit per second of CPU time", 1, |runs| {
        runs.strict(|traffic| traffic.received.mbit_cpu_s)
    });
    pairs(&table, "sending", |traffic| &traffic.sent);
    pairs(&table, "receiving", |traffic| &traffic.received);

    let table = figures.table("Memory that a VFIO program in the guest maps at once");
    let bulk = |size: Size, figure: fn(&Bulk) -> f64| {
        move |runs: &Runs| runs.bulk.get(size.name).map_or(f64::NAN, figure)
    };
    let hundredth = Asked::RatioAtMost(0.01);
    table.asked(
        "2 MiB in 4 KiB pages: map ioctls",
        0,
        hundredth,
        bulk(TWO_MIB, |bulk| bulk.maps as f64),
    );
    table.row("  unmap ioctls", 0, bulk(TWO_MIB, |bulk| bulk.unmaps as f64));
    table.row(
        "1 GiB in 4 KiB pages: pieces in the guest",
        0,
        bulk(ONE_GIB, |bulk| bulk.runs as f64),
    );
    table.row("  map ioctls", 0, bulk(ONE_GIB, |bulk| bulk.maps as f64));
    let entries = |bulk: &Bulk| bulk.maps.saturating_sub(bulk.refused) as f64;
    table.row("  map entries of the host in use", 0, bulk(ONE_GIB, entries));
    table.asked(
        "  maps the host had no room for",
        0,
        Asked::AtMost(0.0),
        bulk(ONE_GIB, |bulk| bulk.refused as f64),
    );
    table.row("  unmap ioctls", 0, bulk(ONE_GIB, |bulk| bulk.unmaps as f64));
    table.row("  time to map, ms", 0, bulk(ONE_GIB, |bulk| bulk.map_ms));
    table.row("  time to unmap, ms", 0, bulk(ONE_GIB, |bulk| bulk.unmap_ms));

    let table = figures.table("Locked memory of a guest with 512 MiB, KiB");
    for (index, (devices, words)) in locked::CASES.into_iter().enumerate() {
        table.row(&format!("{devices} device(s), {words}"), 0, |runs| {
            runs.locked
                .get(index)
                .map_or(f64::NAN, |locked| locked.kib as f64)
        });
    }

    let table = figures.table("A guest passes its NIC on to a guest of its own, 1024 and 256 MiB");
    let nested = |figure: fn(&Nested) -> f64| move |runs: &Runs| median(runs.nested.iter().map(figure));
    let over_qemu =
        |figure: fn(&Nested) -> f64| move |runs: &Runs| median(runs.nested_qemu.iter().map(figure));
    table.row(
        "outer guest's start to its init, s",
        2,
        nested(|nested| nested.outer_init_s),
    );
    table.row(
        "inner VMM's start to its end, s",
        2,
        nested(|nested| nested.inner_s),
    );
    table.asked(
        "all, the same VMM twice, s",
        2,
        Asked::RatioAtMost(0.8),
        nested(|nested| nested.wall_s),
    );
    table.row(
        "all, with QEMU inside both, s",
        2,
        over_qemu(|nested| nested.wall_s),
    );
}

/// What a map with its unmap costs.
fn pairs(table: &Table<'_, Runs>, way: &str, stream: fn(&Traffic) -> &Stream) {
    table.row(&format!("{way}: map + unmap pairs a second"), 0, |runs| {
        runs.strict(|traffic| stream(traffic).pairs() / stream(traffic).window_s)
    });
    let a_pair = |figure: fn(&Stream) -> f64| {
        move |runs: &Runs| {
            runs.strict(|traffic| {
                let stream = stream(traffic);
                figure(stream) / stream.pairs().max(1.0)
            })
        }
    };
    let calls = |stream: &Stream| (stream.counts.ioctls(MAP) + stream.counts.ioctls(UNMAP)) as f64;
    table.row("  map and unmap ioctls a pair", 2, a_pair(calls));
    let exits = |stream: &Stream| stream.counts.total("userspace_exits") as f64;
    table.row("  userspace exits a pair", 2, a_pair(exits));
    let own = |stream: &Stream| stream.cpu.own_s * 1e6;
    table.asked(
        "  the VMM's own CPU time a pair, us",
        1,
        Asked::RatioAtMost(0.5),
        a_pair(own),
    );
    table.row(
        "  the host kernel's for it, us",
        1,
        a_pair(|stream| stream.cpu.system_s * 1e6),
    );
    table.row("  time away from the guest a pair, us", 1, |runs| {
        runs.strict(|traffic| 2.0 * stream(traffic).exit_us)
    });
}

impl Runs {
    fn strict(&self, figure: impl Fn(&Traffic) -> f64) -> f64 {
        median(self.strict.iter().map(figure))
    }
}

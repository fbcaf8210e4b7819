//! A guest with an IOMMU of its own: strict traffic, what mappings cost the VMM, and a guest of the guest.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use strait_bench::counting::{Figures, MAP, Sheet, UNMAP, less, more};
use strait_bench::{Asked, Metric};

use super::Bench;
use super::inner::{self, Nested};
use super::large_maps::{self, Bulk, ONE_GIB, Size, TWO_MIB};
use super::locked;
use super::traffic::{self, Stream, Traffic};
use crate::guest::Vmm;
use crate::lab::Assigned;
use crate::lab::devices::NIC;

/// An invalidation for each unmapping, and none put off.
const STRICT: &str = "intel_iommu=on,strict";

/// All of one VMM.
#[derive(Debug, Default)]
pub(super) struct Runs {
    strict: Vec<Traffic>,
    /// By size.
    bulk: BTreeMap<&'static str, Bulk>,
    /// KiB, of each of [`locked::CASES`].
    locked: Vec<u64>,
    /// The same VMM in the guest.
    nested: Vec<Nested>,
    /// QEMU in the guest.
    nested_qemu: Vec<Nested>,
}

pub(super) fn measure(bench: &Bench<'_>, figures: &mut Figures<Runs>) -> Result<()> {
    for vmm in bench.vmms {
        let name = vmm.name();
        bulk_maps(figures, bench, *vmm).with_context(|| format!("{name}: bulk maps failed"))?;
        figures.of(vmm.name()).locked =
            locked::measure(bench, *vmm).with_context(|| format!("{name}: locked memory failed"))?;
    }
    let nic = Assigned::bind(bench.agent, NIC.at())?;
    bench.rounds("strict streams", |vmm| {
        let traffic = traffic::measure(bench, vmm, &nic.bdf, Some(STRICT))?;
        let shown = traffic.to_string();
        figures.of(vmm.name()).strict.push(traffic);
        Ok(shown)
    })?;
    bench.rounds("the same VMM nested", |vmm| {
        let nested = inner::measure(bench, vmm, vmm, &nic.bdf)?;
        let shown = format!("{:.1} s", nested.wall_s);
        if vmm == Vmm::Qemu {
            figures.of(vmm.name()).nested_qemu.push(nested.clone());
        }
        figures.of(vmm.name()).nested.push(nested);
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
            figures.of(Vmm::Strait.name()).nested_qemu.push(nested);
        }
    }
    nic.restore()
}

fn bulk_maps(figures: &mut Figures<Runs>, bench: &Bench<'_>, vmm: Vmm) -> Result<()> {
    for size in [TWO_MIB, ONE_GIB] {
        let bulk = large_maps::measure(bench, vmm, size).with_context(|| size.name)?;
        eprintln!("  {} mapped at once, {}: {bulk}", size.name, vmm.name());
        figures.of(vmm.name()).bulk.insert(size.name, bulk);
    }
    Ok(())
}

pub(super) fn fill(sheet: &mut Sheet<'_, Runs>) {
    streams(sheet);
    pairs(sheet, "sending", |traffic| &traffic.sent);
    pairs(sheet, "receiving", |traffic| &traffic.received);
    at_once(sheet);
    for (index, (devices, words)) in locked::CASES.into_iter().enumerate() {
        let title = format!("locked memory of a guest with 512 MiB, {devices} device(s), {words}");
        sheet.row(less(&format!("locked.{index}"), &title, "KiB"), |runs| {
            runs.locked.get(index).map(|kib| *kib as f64)
        });
    }
    nested(sheet);
}

fn streams(sheet: &mut Sheet<'_, Runs>) {
    let sent = more("strict.sent", &format!("guest sends by igb, {STRICT}"), "Mbit/s");
    sheet.row(sent.asked(Asked::RatioAtLeast(1.5)), |runs| {
        runs.strict(|traffic| traffic.sent.mbit_s)
    });
    let locked = less("strict.locked", "locked memory while the guest sends", "KiB");
    sheet.row(locked, |runs| runs.strict(|traffic| traffic.locked_kib as f64));
    let title = "guest sends, for each second of CPU time";
    sheet.row(more("strict.sent-by-cpu", title, "Mbit"), |runs| {
        runs.strict(|traffic| traffic.sent.mbit_cpu_s)
    });
    let received = format!("guest receives by igb, {STRICT}");
    sheet.row(more("strict.received", &received, "Mbit/s"), |runs| {
        runs.strict(|traffic| traffic.received.mbit_s)
    });
    let title = "guest receives, for each second of CPU time";
    sheet.row(more("strict.received-by-cpu", title, "Mbit"), |runs| {
        runs.strict(|traffic| traffic.received.mbit_cpu_s)
    });
}

/// Memory that a VFIO program in the guest maps at once.
fn at_once(sheet: &mut Sheet<'_, Runs>) {
    let mut row = |metric: Metric, size: Size, figure: fn(&Bulk) -> f64| {
        sheet.row(metric, |runs| runs.bulk.get(size.name).map(figure));
    };
    let maps = less("maps.2m", "2 MiB mapped at once in 4 KiB pages: map ioctls", "");
    row(maps.asked(Asked::RatioAtMost(0.01)), TWO_MIB, |bulk| {
        bulk.maps as f64
    });
    let unmaps = less("maps.2m-unmaps", "2 MiB: unmap ioctls", "");
    row(unmaps, TWO_MIB, |bulk| bulk.unmaps as f64);
    let runs = less(
        "maps.1g-runs",
        "1 GiB mapped at once in 4 KiB pages: pieces in the guest",
        "",
    );
    row(runs, ONE_GIB, |bulk| bulk.runs as f64);
    row(less("maps.1g", "1 GiB: map ioctls", ""), ONE_GIB, |bulk| {
        bulk.maps as f64
    });
    let entries = less("maps.1g-entries", "1 GiB: map entries of the host in use", "");
    row(entries, ONE_GIB, |bulk| {
        bulk.maps.saturating_sub(bulk.refused) as f64
    });
    let refused = less("maps.1g-refused", "1 GiB: maps the host had no room for", "");
    row(refused.asked(Asked::AtMost(0.0)), ONE_GIB, |bulk| {
        bulk.refused as f64
    });
    let unmaps = less("maps.1g-unmaps", "1 GiB: unmap ioctls", "");
    row(unmaps, ONE_GIB, |bulk| bulk.unmaps as f64);
    row(less("maps.1g-map", "1 GiB: time to map", "ms"), ONE_GIB, |bulk| {
        bulk.map_ms
    });
    row(
        less("maps.1g-unmap", "1 GiB: time to unmap", "ms"),
        ONE_GIB,
        |bulk| bulk.unmap_ms,
    );
}

/// A guest passes its NIC on to a guest of its own, 1024 and 256 MiB.
fn nested(sheet: &mut Sheet<'_, Runs>) {
    let mut row = |metric: Metric, runs: fn(&Runs) -> &[Nested], figure: fn(&Nested) -> f64| {
        sheet.row(metric, |all| runs(all).iter().map(figure).collect::<Vec<_>>());
    };
    let same: fn(&Runs) -> &[Nested] = |runs| &runs.nested;
    let outer = less("nested.outer-init", "outer guest's start to its init", "s");
    row(outer, same, |nested| nested.outer_init_s);
    let inner = less("nested.inner", "inner VMM's start to its end", "s");
    row(inner, same, |nested| nested.inner_s);
    let all = less(
        "nested.all",
        "a guest that passes its NIC on, the same VMM twice",
        "s",
    );
    row(all.asked(Asked::RatioAtMost(0.8)), same, |nested| nested.wall_s);
    let over_qemu = less("nested.over-qemu", "the same with QEMU inside both", "s");
    row(over_qemu, |runs| &runs.nested_qemu, |nested| nested.wall_s);
}

/// What a map with its unmap costs.
fn pairs(sheet: &mut Sheet<'_, Runs>, way: &str, stream: fn(&Traffic) -> &Stream) {
    let mut row = |metric: Metric, figure: fn(&Stream) -> f64| {
        sheet.row(metric, |runs| runs.strict(|traffic| figure(stream(traffic))));
    };
    let id = |name: &str| format!("pairs.{way}-{name}");
    let rate = more(&id("rate"), &format!("{way}: map + unmap pairs a second"), "");
    row(rate, |stream| stream.pairs() / stream.window_s);
    let calls = less(&id("ioctls"), &format!("{way}: map and unmap ioctls a pair"), "");
    row(calls, |stream| {
        stream.a_pair((stream.counts.ioctls(MAP) + stream.counts.ioctls(UNMAP)) as f64)
    });
    let exits = less(&id("exits"), &format!("{way}: exits to user space a pair"), "");
    row(exits, |stream| {
        stream.a_pair(stream.counts.total("userspace_exits") as f64)
    });
    let own = less(&id("own"), &format!("{way}: the VMM's own CPU time a pair"), "us");
    row(own.asked(Asked::RatioAtMost(0.5)), |stream| {
        stream.a_pair(stream.cpu.own_s * 1e6)
    });
    let kernel = less(
        &id("kernel"),
        &format!("{way}: the host kernel's for it a pair"),
        "us",
    );
    row(kernel, |stream| stream.a_pair(stream.cpu.system_s * 1e6));
    let away = less(
        &id("away"),
        &format!("{way}: time away from the guest a pair"),
        "us",
    );
    row(away, |stream| 2.0 * stream.exit_us);
}

impl Runs {
    fn strict(&self, figure: impl Fn(&Traffic) -> f64) -> Vec<f64> {
        self.strict.iter().map(figure).collect()
    }
}

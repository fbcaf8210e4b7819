//! Strait beside QEMU: the same kernel, initramfs and device, one after the other in one lab host,
//! round after round, so that whatever disturbs the machine disturbs both.

mod behind_iommu;
mod counts;
mod figures;
mod inner;
mod iperf;
mod large_maps;
mod locked;
mod names;
mod plain;
mod process;
mod start;
mod table;
mod trace;
mod traffic;
mod vectors;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::agent::Agent;
use crate::guest::{Boot, Guest, GuestConfig, Vmm};
use crate::lab::{Kind, LabHost, Logs, build_strait};
use crate::supplies::Supplies;

use figures::Figures;
use iperf::Iperf;

/// A nested run takes one to two minutes on a quiet machine, everything else less.
const LIMIT: Duration = Duration::from_secs(900);

/// VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA, the low half.
const MAP: u64 = 0x3b71;
const UNMAP: u64 = 0x3b72;

/// Measures a guest with a NIC, or with `is_nested` one with an IOMMU of its own. Prints a table and writes
/// a file.
pub(crate) fn bench(is_nested: bool, rounds: u32, vmms: &[Vmm]) -> Result<ExitCode> {
    let supplies = Supplies::prepare()?;
    let logs = Logs::open()?;
    let iperf = Iperf::start(&supplies.root)?;
    let strait = vmms.contains(&Vmm::Strait).then(build_strait).transpose()?;
    let host = LabHost::boot(&supplies, &logs, strait.as_deref(), Kind::Whole)?;
    let bench = Bench {
        host: &host,
        agent: &host.agent,
        logs: &logs,
        iperf: &iperf,
        rounds,
        vmms,
    };
    if is_nested {
        bench.report("bench-nested.json", behind_iommu::measure, behind_iommu::print)?;
    } else {
        bench.report("bench.json", plain::measure, plain::print)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(figures: &impl Serialize, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(figures).context("Cannot write the figures as JSON")?;
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))?;
    println!("\nAll rounds: {}", path.display());
    Ok(())
}

/// What every measurement works with.
struct Bench<'a> {
    host: &'a LabHost,
    agent: &'a Agent,
    logs: &'a Logs,
    iperf: &'a Iperf,
    rounds: u32,
    vmms: &'a [Vmm],
}

impl<'a> Bench<'a> {
    /// Measures, prints and writes to a file, what there is even where something failed.
    fn report<R: Default + Serialize>(
        &self,
        file: &str,
        measure: fn(&Bench<'_>, &mut Figures<R>) -> Result<()>,
        print: fn(&Figures<R>, u32),
    ) -> Result<()> {
        let mut figures = Figures::default();
        let outcome = measure(self, &mut figures);
        print(&figures, self.rounds);
        write(&figures, &self.logs.path(file))?;
        outcome
    }

    /// Calls `work` for each VMM in turn, round after round. It returns a figure to show.
    fn rounds(&self, what: &str, mut work: impl FnMut(Vmm) -> Result<String>) -> Result<()> {
        for round in 1..=self.rounds {
            for vmm in self.vmms {
                let name = vmm.name();
                let shown = work(*vmm).with_context(|| format!("{what}: round {round} of {name} failed"))?;
                eprintln!("  {what}, round {round} of {}, {name}: {shown}", self.rounds);
            }
        }
        Ok(())
    }

    /// Runs `work` on a freshly started guest and keeps the console, whatever happens. `work` waits for the guest to
    /// be ready, and for its end.
    fn with_guest<T>(
        &self,
        vmm: Vmm,
        config: &GuestConfig,
        work: impl FnOnce(&mut Guest<'a>) -> Result<T>,
    ) -> Result<T> {
        let boot = Boot {
            pace: self.host.pace.factor(),
            ..Boot::default()
        };
        let command = vmm.command(config, &boot.cmdline(&config.words));
        let mut guest = Guest::start(
            self.agent,
            command,
            Instant::now() + self.host.pace.stretch(LIMIT),
            false,
        )?;
        let result = work(&mut guest);
        self.logs
            .append(&format!("bench-{}.log", vmm.name()), &guest.transcript());
        result
    }
}

//! From the start of a VMM until its device may reach all of the guest's memory, which is taken from the host by then.

use anyhow::Result;
use strait_bench::counting::StartTrace;

use super::Bench;
use super::probes;
use crate::guest::{GuestConfig, Vmm};

/// The host's pool of 2 MiB pages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// What nobody can be better than.
pub(super) const FLOOR: &str =
    "a launcher that opens the device, takes memory from the host on all CPUs, and maps it";

/// MiB that a guest has: the first of these beside which the host has a quarter more free, else the last.
const SIZES: [u64; 4] = [4096, 2048, 1024, 512];

/// Which pages memory is made of.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    /// As it stands in an id.
    pub(super) name: &'static str,
    /// As it stands in a title.
    pub(super) title: &'static str,
    /// As Strait is told.
    keys: &'static str,
    /// As the probe is told.
    probe: &'static str,
    /// They are of the pool.
    is_pool: bool,
}

impl Pages {
    /// QEMU takes pages of a pool by an object of its own for memory, with another path to it: not the same.
    pub(super) fn is_for(self, vmm: Vmm) -> bool {
        vmm == Vmm::Strait || !self.is_pool
    }
}

/// Each kind.
pub(super) const PAGES: [Pages; 2] = [
    Pages {
        name: "ordinary",
        title: "ordinary pages",
        keys: ",prealloc=on",
        probe: "ordinary",
        is_pool: false,
    },
    Pages {
        name: "2M",
        title: "2 MiB pages of the host's pool",
        keys: ",prealloc=on,hugepages=2M",
        probe: "2M",
        is_pool: true,
    },
];

/// Seconds of a VMM, and of the probe.
#[derive(Debug, Default, Clone)]
pub(super) struct Ready {
    pub(super) vmm_s: Vec<f64>,
    pub(super) floor_s: Vec<f64>,
}

/// How much memory, in MiB.
pub(super) fn size(bench: &Bench<'_>) -> Result<u64> {
    let free = bench
        .agent
        .sh("sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
    let free_mib = free.trim().parse::<u64>()? >> 10;
    let size = SIZES.into_iter().find(|size| size + size / 4 < free_mib);
    Ok(size.unwrap_or(SIZES[SIZES.len() - 1]))
}

/// Touches as much of the lab host's memory once: the machine below it gives that at the first touch, and whoever comes first
/// would pay for all.
pub(super) fn warm_up(bench: &Bench<'_>, nic: &str, memory_mib: u64) -> Result<()> {
    let config = GuestConfig {
        memory_mib,
        ..GuestConfig::default()
    };
    let launch = probes::like(&config, nic);
    probes::probe(bench).launch(&launch, "--dma").map(drop)
}

/// One start of each, the probe first or last by turns. Seconds of the VMM.
pub(super) fn measure(
    bench: &Bench<'_>,
    vmm: Vmm,
    nic: &str,
    pages: Pages,
    memory_mib: u64,
    into: &mut Ready,
) -> Result<f64> {
    let config = GuestConfig {
        memory_mib,
        memory_keys: if vmm == Vmm::Strait { pages.keys } else { "" },
        ..GuestConfig::with(&[nic]).told("lab.run=load")
    };
    let _pool = pages
        .is_pool
        .then(|| Pool::fill(bench, memory_mib / 2))
        .transpose()?;
    let probe = |into: &mut Ready| -> Result<()> {
        if vmm == Vmm::Strait {
            let options = format!("--dma --pages {}", pages.probe);
            let launched = probes::probe(bench).launch(&probes::like(&config, nic), &options)?;
            into.floor_s.push(launched.moments.dma_ready_s());
        }
        Ok(())
    };
    let is_first = into.vmm_s.len().is_multiple_of(2);
    if is_first {
        probe(into)?;
    }
    // QEMU maps all of it first, and has too many exits to be noted down.
    let trace = match vmm {
        Vmm::Strait => StartTrace::start_whole(bench.agent)?,
        Vmm::Qemu => StartTrace::start(bench.agent)?,
    };
    bench.with_guest(vmm, &config, |guest| guest.expect_end(0))?;
    let seconds = trace.finish()?.dma_ready_s();
    into.vmm_s.push(seconds);
    if !is_first {
        probe(into)?;
    }
    Ok(seconds)
}

/// Pages of the host's pool, which are the host's again when it is dropped.
struct Pool<'a>(&'a Bench<'a>);

impl<'a> Pool<'a> {
    fn fill(bench: &'a Bench<'a>, pages: u64) -> Result<Self> {
        let pool = Self(bench);
        bench
            .agent
            .sh(&format!("echo {pages} > {POOL} && [ $(cat {POOL}) = {pages} ]"))?;
        Ok(pool)
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        let _ = self.0.agent.sh(&format!("echo 0 > {POOL}"));
    }
}

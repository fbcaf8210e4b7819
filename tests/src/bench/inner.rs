//! A guest with a guest of its own: how long it takes from the start to the end of all.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::Bench;
use crate::guest::INNER;
use crate::guest::{GuestConfig, Vmm};

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Nested {
    /// Start of the outer VMM to the outer guest's first program.
    pub(super) outer_init_s: f64,
    /// Start of the inner VMM to its end.
    pub(super) inner_s: f64,
    /// Start of the outer VMM to its end.
    pub(super) wall_s: f64,
}

/// Runs `inner` in a guest of `outer`: L1 boots, gives its NIC to vfio-pci and runs L2, which brings the NIC
/// up, pings and powers off; then L1 powers off. The initial file system is the same for all combinations.
pub(super) fn measure(bench: &Bench<'_>, outer: Vmm, inner: Vmm, nic: &str) -> Result<Nested> {
    let config = GuestConfig {
        initrd: "nested-qemu",
        memory_mib: 1024,
        devices: vec![nic.to_owned()],
        cmdline: format!(
            "console=ttyS0 panic=-1 quiet intel_iommu=on iommu=pt lab.do=hypervisor,give,inner \
             lab.drivers=kvm_amd,vfio_iommu_type1,vfio_pci,igb lab.pass=01:00.0 lab.vmm={} \
             lab.inner=net,ping3 lab.inner_drivers=igb lab.address=10.0.2.15",
            inner.name()
        ),
        viommu: true,
        ..GuestConfig::default()
    };
    let start = Instant::now();
    bench.with_guest(outer, &config, |guest| {
        guest.expect("init")?;
        let outer_init_s = start.elapsed().as_secs_f64();
        guest.expect("bound")?;
        let inner_start = Instant::now();
        let answered = guest.expect(&format!("{INNER}ping"))?;
        ensure!(
            answered == "3",
            "{answered} of 3 pings of the inner guest were answered"
        );
        let code = guest.expect(&format!("{INNER}exit"))?;
        ensure!(code == "0", "The inner VMM ended with code {code}");
        let inner_s = inner_start.elapsed().as_secs_f64();
        let finished = guest.expect_power_off()?;
        Ok(Nested {
            outer_init_s,
            inner_s,
            wall_s: Duration::from_millis(finished.elapsed_ms).as_secs_f64(),
        })
    })
}

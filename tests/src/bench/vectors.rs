//! What it costs to set up interrupt vectors: a guest programs a part of the NVMe drive's MSI-X table
//! itself and then enables it at once, as no Linux driver does but other systems do.

use anyhow::Result;
use serde::Serialize;

use super::Bench;
use super::trace::{IOCTLS_ALONE, Trace};
use crate::lab::{Assigned, NVME};
use crate::vmm::{GuestConfig, Vmm};

/// Vectors enabled together.
pub(super) const COUNTS: [u16; 3] = [3, 16, 64];

/// The calls for so many vectors.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SetUp {
    vectors: u16,
    /// KVM_SET_GSI_ROUTING.
    pub(super) routings: u64,
    /// KVM_IRQFD.
    pub(super) irqfds: u64,
    /// VFIO_DEVICE_SET_IRQS.
    pub(super) bindings: u64,
}

impl SetUp {
    /// All three.
    pub(super) fn total(&self) -> u64 {
        self.routings + self.irqfds + self.bindings
    }
}

/// One guest that enables each number of vectors in turn.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm) -> Result<Vec<SetUp>> {
    let drive = Assigned::bind(bench.agent, NVME)?;
    let words = COUNTS.map(|count| count.to_string()).join(",");
    let config = GuestConfig {
        initrd: "bench",
        devices: vec![drive.bdf.clone()],
        // The table is reached through /dev/mem, where nothing else uses it.
        cmdline: format!("console=ttyS0 panic=-1 quiet iomem=relaxed lab.do=vectors lab.vectors={words}"),
        ..GuestConfig::default()
    };
    let set_ups = bench.with_guest(vmm, &config, |guest| {
        let mut set_ups = Vec::new();
        for vectors in COUNTS {
            guest.expect("ask")?;
            let trace = Trace::start(bench.agent, IOCTLS_ALONE)?;
            guest.type_line("go")?;
            guest.expect("enabled")?;
            let counts = trace.finish()?;
            set_ups.push(SetUp {
                vectors,
                routings: counts.ioctls(0xae6a),
                irqfds: counts.ioctls(0xae76),
                bindings: counts.ioctls(0x3b6e),
            });
        }
        guest.expect_power_off()?;
        Ok(set_ups)
    })?;
    drive.restore()?;
    Ok(set_ups)
}

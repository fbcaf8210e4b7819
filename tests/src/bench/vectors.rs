//! What it costs to set up interrupt vectors: a guest programs a part of the NVMe drive's MSI-X table
//! itself and then enables it at once. (Linux's drivers enable an empty one and then set up a vector at a
//! time.)

use anyhow::Result;
use serde::Serialize;

use super::Bench;
use super::trace::{Trace, VECTORS};
use crate::guest::{GuestConfig, Vmm};
use crate::lab::{Assigned, NVME};

/// VFIO_PCI_INTX_IRQ_INDEX and VFIO_PCI_MSIX_IRQ_INDEX.
const INTX: &str = "0";
const MSIX: &str = "2";

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
    /// VFIO_DEVICE_SET_IRQS for MSI-X.
    pub(super) bindings: u64,
    /// The same for the wire, which goes away when MSI-X comes.
    pub(super) wire: u64,
}

impl SetUp {
    /// All that a vector needs.
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
            let trace = Trace::start(bench.agent, VECTORS)?;
            guest.type_line("go")?;
            guest.expect("enabled")?;
            let counts = trace.finish()?;
            set_ups.push(SetUp {
                vectors,
                routings: counts.ioctls(0xae6a),
                irqfds: counts.ioctls(0xae76),
                bindings: counts.of("set_irqs", MSIX),
                wire: counts.of("set_irqs", INTX),
            });
            guest.expect("ask")?;
            guest.type_line("go")?;
        }
        guest.expect_power_off()?;
        Ok(set_ups)
    })?;
    drive.restore()?;
    Ok(set_ups)
}

//! What it costs to set up interrupt vectors: a guest programs a part of the NVMe drive's MSI-X table
//! itself and then enables it at once. (Linux's drivers enable an empty one and then set up a vector at a
//! time.)

use anyhow::Result;
use strait_bench::counting::{Trace, VECTORS};

use super::Bench;
use crate::guest::{GuestConfig, Vmm};
use crate::lab::Assigned;
use crate::lab::devices::NVME;

/// VFIO_PCI_INTX_IRQ_INDEX and VFIO_PCI_MSIX_IRQ_INDEX.
const INTX: &str = "0";
const MSIX: &str = "2";

/// Vectors enabled together.
pub(super) const COUNTS: [u16; 3] = [3, 16, 64];

/// The calls for so many vectors.
#[derive(Debug, Clone)]
pub(super) struct SetUp {
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

/// How the guest reaches the drive, which has no driver, and its table, past which nothing else uses /dev/mem.
const FIND: &str =
    "for device in /sys/bus/pci/devices/*; do [ $(cat $device/class) != 0x010802 ] || break; done
    config() { od -A n -t u$2 -j $1 -N $2 $device/config | tr -d ' '; }
    control() { printf \"\\\\$1\" | dd of=$device/config bs=1 seek=$((msix + 3)) conv=notrunc 2> /dev/null; }
    msix=$(config 52 1)
    while [ $(config $msix 1) != 17 ]; do msix=$(config $((msix + 1)) 1); [ $msix != 0 ]; done";

/// Programs so many vectors, which are not in use yet.
const PROGRAM: &str =
    "echo 1 > $device/enable; table=$(config $((msix + 4)) 4); bar=$(bar $device $((table % 8)))
    for vector in $(seq 0 $((count - 1))); do
        entry=$((bar + table / 8 * 8 + 16 * vector))
        devmem $entry 32 0xfee00000; devmem $((entry + 4)) 32 0
        devmem $((entry + 8)) 32 $((64 + vector)); devmem $((entry + 12)) 32 0
    done";

/// One guest that enables each number of vectors in turn.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm) -> Result<Vec<SetUp>> {
    let drive = Assigned::bind(bench.agent, NVME.at())?;
    let config = GuestConfig {
        initrd: "bench",
        ..GuestConfig::with(&[NVME.at()])
    };
    let set_ups = bench.with_guest(vmm, &config, |guest| {
        guest.ready()?;
        let mut set_ups = Vec::new();
        for vectors in COUNTS {
            guest.sh(&format!("{FIND}\ncount={vectors}\n{PROGRAM}"))?;
            let trace = Trace::start(bench.agent, VECTORS)?;
            guest.sh(&format!("{FIND}\ncontrol 200"))?;
            let counts = trace.finish()?;
            set_ups.push(SetUp {
                routings: counts.ioctls(0xae6a),
                irqfds: counts.ioctls(0xae76),
                bindings: counts.of("set_irqs", MSIX),
                wire: counts.of("set_irqs", INTX),
            });
            guest.sh(&format!("{FIND}\ncontrol 0"))?;
        }
        guest.power_off()?;
        Ok(set_ups)
    })?;
    drive.restore()?;
    Ok(set_ups)
}

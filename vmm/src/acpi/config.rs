//! What the tables tell.

use super::pci_host::PciHost;
#[cfg(test)]
use crate::layout::{self, Range};

/// The machine that the tables describe, besides the constants of the layout.
#[derive(Clone, Debug)]
pub struct AcpiConfig {
    /// Local APIC ids of the vCPUs, the boot processor's first.
    pub apic_ids: Vec<u32>,
    /// The PCI Express host bridge.
    pub pci: PciHost,
    /// The guest may be asked to power off.
    pub has_power_button: bool,
    /// The real-time clock is told of; its ports are there without that, too.
    pub has_clock: bool,
    /// The number of the I/O APIC's first pin in the system.
    pub first_gsi: u8,
    /// Whole tables that others made, for instance a DMAR.
    pub extra: Vec<Vec<u8>>,
}

#[cfg(test)]
impl AcpiConfig {
    /// A machine for tests: two CPUs, three root ports, a window above 4 GiB.
    pub(super) fn example() -> Self {
        Self {
            apic_ids: vec![0, 1],
            pci: PciHost {
                last_bus: 3,
                mmio_32: layout::MMIO_32[0],
                mmio_64: Some(Range::new(5 << 30, 517 << 30)),
                unmappable: Vec::new(),
            },
            has_power_button: true,
            has_clock: true,
            first_gsi: 0,
            extra: Vec::new(),
        }
    }
}

//! MCFG: where the memory-mapped configuration space is (PCI Firmware 3.3 §4.1.2).

use acpi_tables::mcfg::MCFG;

use super::header::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// ECAM for bus 0 to `last_bus`. Linux looks for devices on every bus that is listed here, 32 cycles each
/// (`pcibios_fixup_peer_bridges`, arch/x86/pci/legacy.c), so no bus is listed that cannot have any.
pub(super) fn table(last_bus: u8) -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start.0, 0, 0, last_bus);
    mcfg
}

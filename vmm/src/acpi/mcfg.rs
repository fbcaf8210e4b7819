//! MCFG: where the memory-mapped configuration space is (PCI Firmware 3.3 §4.1.2).

use acpi_tables::mcfg::MCFG;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

pub(super) fn table() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start.0, 0, 0, u8::MAX);
    mcfg
}

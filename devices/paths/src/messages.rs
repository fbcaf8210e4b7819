//! Interrupts by MSI-X.

use std::hint::black_box;
use std::sync::Arc;

use strait_devices::pci::capability::Msix;
use strait_devices::pci::capability::msix::{ENABLE, ENTRY_LEN};

use super::host::Host;

const VECTORS: u16 = 16;
/// Vector control, from an entry's start.
const CONTROL: u64 = 12;

/// One vector of a table in use is masked and unmasked, as a driver does it around its handler.
pub(crate) fn mask_and_unmask() -> Box<dyn FnMut()> {
    let mut msix = Msix::new(VECTORS, Arc::new(Host), Arc::new(Host)).expect("16 vectors");
    for n in 0..u64::from(VECTORS) {
        msix.write_table(n * ENTRY_LEN, &0xfee0_0000_u64.to_le_bytes());
        msix.write_table(n * ENTRY_LEN + 8, &u64::from(0x4000 + n as u32).to_le_bytes());
    }
    msix.set_control(ENABLE);
    Box::new(move || {
        for masked in [1_u32, 0] {
            msix.write_table(black_box(5 * ENTRY_LEN + CONTROL), &masked.to_le_bytes());
        }
    })
}

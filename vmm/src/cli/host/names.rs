//! `strait host names`: devices for the completion of shells.

use strait_vfio::host::{Inventory, Kernel, PciIds, Root};

use super::Failure;
use super::screen::Screen;

/// A device a line, with what it is behind a tab; bridges cannot be meant.
pub(super) fn print(root: &Root, kernel: &dyn Kernel, screen: &mut Screen<'_>) -> Result<u8, Failure> {
    let ids = PciIds::read(root);
    for function in Inventory::read(root, kernel)?.functions {
        let pci = &function.pci;
        if !pci.is_bridge {
            let (name, driver) = (ids.full_name(pci), pci.driver_name());
            screen.line(format!("{}\t{name} ({driver})", pci.bdf))?;
        }
    }
    Ok(0)
}

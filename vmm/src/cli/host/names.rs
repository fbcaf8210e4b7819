//! `strait host names`: devices for the completion of shells.

use strait_vfio::host::{Devices, PciIds, Root};

use super::Failure;
use super::screen::Screen;

/// A device a line, with what it is behind a tab; bridges cannot be meant.
pub(super) fn print(root: &Root, screen: &mut Screen<'_>) -> Result<u8, Failure> {
    let ids = PciIds::read(root);
    for pci in Devices::read(root)?.devices {
        if !pci.is_bridge {
            let (name, driver) = (ids.full_name(&pci), pci.driver_name());
            screen.line(format!("{}\t{name} ({driver})", pci.bdf))?;
        }
    }
    Ok(0)
}

//! `strait host names`: devices for the completion of shells.

use strait_vfio::host::{Devices, Names, PciIds, Root};

use crate::cli::failure::Failure;
use crate::cli::screen::Screen;

/// A name a line, with what it stands for behind a tab: the address of each device that can be meant, which no bridge
/// is, and its network interfaces and disks.
pub(super) fn print(root: &Root, screen: &mut Screen<'_>) -> Result<u8, Failure> {
    let (ids, names) = (PciIds::read(root), Names::read(root));
    for pci in Devices::read(root)?.devices {
        if pci.is_bridge {
            continue;
        }
        let (name, driver) = (ids.full_name(&pci), pci.driver_name());
        let mut words = vec![pci.bdf.to_string()];
        words.extend(names.interfaces(pci.bdf));
        words.extend(names.disks(pci.bdf));
        for word in words {
            screen.line(format!("{word}\t{name} ({driver})"))?;
        }
    }
    Ok(0)
}

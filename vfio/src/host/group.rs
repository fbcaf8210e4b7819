//! IOMMU groups: the devices that the host's IOMMU cannot tell apart, and that so belong together.

use std::fs;
use std::io;

use super::sysfs::{PciDevice, Root};

/// Drivers whose devices the kernel lets be beside a user's: they do no DMA of their own
/// (`driver_managed_dma` since Linux 5.18, a list in `vfio_dev_driver_allowed` before).
const QUIET_DRIVERS: [&str; 2] = ["pci-stub", "pcieport"];

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number, as in `/dev/vfio/<number>`.
    pub number: u32,
    /// All PCI functions in it.
    pub members: Vec<PciDevice>,
}

impl Group {
    /// Reads group `number`.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn read(root: &Root, number: u32) -> io::Result<Self> {
        let folder = root.path(format!("sys/kernel/iommu_groups/{number}/devices"));
        let mut members = Vec::new();
        for entry in fs::read_dir(folder)? {
            // A member that is no PCI device (a platform device) has another form of name.
            if let Ok(bdf) = entry?.file_name().to_string_lossy().parse() {
                members.extend(root.device(bdf)?);
            }
        }
        members.sort_by_key(|member| member.bdf);
        Ok(Self { number, members })
    }

    /// The members that keep the group from being given away: a driver of the host uses them.
    pub fn culprits(&self) -> impl Iterator<Item = &PciDevice> {
        self.members.iter().filter(|member| !is_harmless(member))
    }
}

fn is_harmless(member: &PciDevice) -> bool {
    let driver = member.driver.as_deref();
    member.is_given || driver.is_none_or(is_quiet_driver)
}

pub(crate) fn is_quiet_driver(driver: &str) -> bool {
    QUIET_DRIVERS.contains(&driver)
}

/// vfio-pci, and the drivers that are vfio-pci with something added (mlx5_vfio_pci, nvgrace-gpu-vfio-pci).
pub(crate) fn is_vfio_driver(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("vfio_pci") || driver.ends_with("-vfio-pci")
}

//! IOMMU groups: the devices that the host's IOMMU cannot tell apart, and that so belong together.

use std::fs;
use std::io;

use super::drivers::is_quiet_driver;
use super::sysfs::{PciDevice, Root};

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

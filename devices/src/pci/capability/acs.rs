//! Access Control Services of a root port (PCIe §7.7.8).

use crate::pci::config_space::ConfigSpace;
use crate::pci::spec::extended_capability_id;

/// Source validation, translation blocking, request and completion redirect, upstream forwarding: what
/// Linux asks for before it puts the devices behind a port into a group of their own
/// (`REQ_ACS_FLAGS`, drivers/iommu/iommu.c).
const CAPABILITIES: u16 = 0x1f;

/// Adds the capability at `offset` as the last of the list.
pub fn add(config: &mut ConfigSpace, offset: u16) {
    config.set(offset, &extended_capability_id::ACS.to_le_bytes());
    config.set(offset + 2, &[0x01, 0x00]);
    config.set(offset + 4, &CAPABILITIES.to_le_bytes());
    config.allow_write(offset + 6, &CAPABILITIES.to_le_bytes());
}

//! The PCI Express capability of a root port (PCIe §7.5.3).

use crate::pci::config_space::ConfigSpace;
use crate::pci::spec::capability_id;

/// Version 2, port type root port (§7.5.3.2).
const CAPABILITIES: u16 = 2 | 4 << 4;
/// Role-based error reporting, 128-byte payload (§7.5.3.3).
const DEVICE_CAPABILITIES: u32 = 1 << 15;
/// Error reporting enables, relaxed ordering, payload and read request size (§7.5.3.4).
const DEVICE_CONTROL_MASK: u16 = 0x70ff;
/// x1 at 2.5 GT/s, with data link layer active reporting; the port number goes above (§7.5.3.6).
const LINK_CAPABILITIES: u32 = 0x0010_0011;
/// x1 at 2.5 GT/s, link active (§7.5.3.8).
const LINK_STATUS: u16 = 0x2011;
/// ASPM, disable, retrain, common clock (§7.5.3.7).
const LINK_CONTROL_MASK: u16 = 0x00fb;
/// Error reporting enables of root control (§7.5.3.12).
const ROOT_CONTROL_MASK: u16 = 0x001f;
/// ARI forwarding and completion timeouts (§7.5.3.16).
const DEVICE_CONTROL_2_MASK: u16 = 0x003f;

/// Bytes of the capability, version 2.
pub const LEN: u16 = 0x3c;

/// Adds the capability at `offset`, without a slot, and links it to `next`.
pub fn add_root_port(config: &mut ConfigSpace, offset: u16, next: u8, port_number: u8) {
    config.set(offset, &[capability_id::EXPRESS, next]);
    config.set(offset + 0x02, &CAPABILITIES.to_le_bytes());
    config.set(offset + 0x04, &DEVICE_CAPABILITIES.to_le_bytes());
    config.allow_write(offset + 0x08, &DEVICE_CONTROL_MASK.to_le_bytes());
    let link = LINK_CAPABILITIES | u32::from(port_number) << 24;
    config.set(offset + 0x0c, &link.to_le_bytes());
    config.allow_write(offset + 0x10, &LINK_CONTROL_MASK.to_le_bytes());
    config.set(offset + 0x12, &LINK_STATUS.to_le_bytes());
    config.allow_write(offset + 0x1c, &ROOT_CONTROL_MASK.to_le_bytes());
    config.allow_write(offset + 0x28, &DEVICE_CONTROL_2_MASK.to_le_bytes());
    config.set(offset + 0x2c, &[0x02]);
    config.set(offset + 0x30, &[0x01]);
}

//! MSI of a function that raises one interrupt itself (PCIe §7.7.1): registers that are read when it is raised.

use super::msi::{ADDRESS_64, ENABLE, MESSAGE_CONTROL};
use crate::irq::MsiMessage;
use crate::pci::config_space::ConfigSpace;
use crate::pci::spec::capability_id;

/// Bytes of the capability with a 64-bit address and without mask bits.
pub const LEN: u16 = 0x0e;

const ADDRESS: u16 = 0x04;
const DATA: u16 = 0x0c;

/// Adds the capability at `offset`, linked to `next`.
pub fn add(config: &mut ConfigSpace, offset: u16, next: u8) {
    config.set(offset, &[capability_id::MSI, next]);
    config.set(offset + MESSAGE_CONTROL, &ADDRESS_64.to_le_bytes());
    config.allow_write(offset + MESSAGE_CONTROL, &ENABLE.to_le_bytes());
    config.allow_write(
        offset + ADDRESS,
        &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    );
    config.allow_write(offset + DATA, &[0xff, 0xff]);
}

/// What an interrupt sends now; nothing while the capability is disabled.
pub fn message(config: &ConfigSpace, offset: u16) -> Option<MsiMessage> {
    let high = u64::from(config.u32(offset + ADDRESS + 4));
    let is_enabled = config.u16(offset + MESSAGE_CONTROL) & ENABLE != 0;
    is_enabled.then(|| MsiMessage {
        address: high << 32 | u64::from(config.u32(offset + ADDRESS)),
        data: config.u16(offset + DATA).into(),
    })
}

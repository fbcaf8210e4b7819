//! PCI Express (PCIe §7.5.3).
//!
//! The function stands behind a root port. How it talks to the host's port (payload size, error reports, link
//! power) is the host's; what only makes it faster or slower is the guest's.

use std::ops::Range;

use strait_devices::pci::spec::capability_id;

use super::kind::{Context, Kind, Taken};
use crate::pci::area::{Area, Request};
use crate::pci::discover::{Capability, ConfigRead};
use crate::pci::field::with_bytes;
use crate::pci::overlay::Overlay;
use crate::pci::spec::express;

pub(super) const KIND: Kind = Kind {
    id: capability_id::EXPRESS,
    is_single: true,
    length,
    take,
};

/// Device control of a function that can reset itself.
struct DeviceControl(u16);

fn length(snapshot: &[u8], offset: u16) -> (u16, u16) {
    match snapshot.u16(offset + express::CAPABILITIES) & express::VERSION {
        0 | 1 => (express::LEN_V1, express::LEN_V1),
        _ => (express::LEN_V2_LEAST, express::LEN_V2),
    }
}

fn take(context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let (snapshot, offset) = (context.snapshot, found.offset);
    let capabilities = snapshot.u16(offset + express::CAPABILITIES);
    overlay.freeze(offset + express::CAPABILITIES, 2);
    if capabilities & express::TYPE == express::TYPE_ROOT_COMPLEX_ENDPOINT {
        let endpoint = capabilities & !express::TYPE;
        overlay.replace(offset + express::CAPABILITIES, &endpoint.to_le_bytes());
    }
    overlay.freeze(offset + express::DEVICE_CAPABILITIES, 4);
    let control = offset + express::DEVICE_CONTROL;
    overlay.freeze(control, 2);
    overlay.allow_write(control, &express::DEVICE_CONTROL_WRITABLE.to_le_bytes());
    overlay.forward(control, &express::DEVICE_CONTROL_FORWARDED.to_le_bytes());
    if capabilities & express::VERSION >= 2 {
        let control = offset + express::DEVICE_CONTROL_2;
        overlay.freeze(control, 2);
        overlay.allow_write(control, &express::DEVICE_CONTROL_2_WRITABLE.to_le_bytes());
        overlay.forward(control, &express::DEVICE_CONTROL_2_FORWARDED.to_le_bytes());
    }
    match snapshot.u32(offset + express::DEVICE_CAPABILITIES) & express::FLR_CAPABLE {
        0 => Taken::shown(),
        _ => Taken::answering(DeviceControl(control)),
    }
}

impl Area for DeviceControl {
    fn range(&self) -> Range<u16> {
        self.0..self.0 + 2
    }

    /// A function level reset (§7.5.3.4).
    fn write(&mut self, _overlay: &mut Overlay, at: u16, data: &[u8]) -> Request {
        match with_bytes(0, at, data) & express::INITIATE_FLR {
            0 => Request::Nothing,
            _ => Request::Reset,
        }
    }
}

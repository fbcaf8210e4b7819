//! PCI Express (PCIe §7.5.3).
//!
//! The function stands behind a root port. How it talks to the host's port (payload size, error reports, link
//! power) is the host's; what only makes it faster or slower is the guest's.

use std::ops::Range;

use strait_devices::pci::spec::capability_id;
use strait_devices::pci::spec::express::{
    Capabilities, DeviceCapabilities, DeviceControl, DeviceControl2, LEN_V1, LEN_V2, LEN_V2_LEAST, offset,
    port_type,
};

use super::kind::{Context, Kind, Taken};
use crate::pci::area::{Area, Request};
use crate::pci::discover::{Capability, ConfigRead};
use crate::pci::field::with_bytes;
use crate::pci::overlay::Overlay;

pub(super) const KIND: Kind = Kind {
    id: capability_id::EXPRESS,
    is_single: true,
    length,
    take,
};

/// All but the reset.
const WRITABLE: DeviceControl = DeviceControl::from_bits(u16::MAX).with_initiate_reset(false);

/// Performance, and no harm to others.
const FORWARDED: DeviceControl = DeviceControl::new()
    .with_relaxed_ordering(true)
    .with_no_snoop(true)
    .with_read_request(0x7);

const FORWARDED_2: DeviceControl2 = DeviceControl2::new()
    .with_completion_timeout(0xf)
    .with_no_completion_timeout(true);

/// Device control of a function that can reset itself, at this register.
struct Resettable(u16);

fn length(snapshot: &[u8], at: u16) -> (u16, u16) {
    match capabilities(snapshot, at).version() {
        0 | 1 => (LEN_V1, LEN_V1),
        _ => (LEN_V2_LEAST, LEN_V2),
    }
}

fn take(context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let (snapshot, at) = (context.snapshot, found.offset);
    let capabilities = capabilities(snapshot, at);
    overlay.freeze(at + offset::CAPABILITIES, 2);
    if capabilities.port_type() == port_type::ROOT_COMPLEX_ENDPOINT {
        let endpoint = capabilities.with_port_type(port_type::ENDPOINT).into_bits();
        overlay.replace(at + offset::CAPABILITIES, &endpoint.to_le_bytes());
    }
    overlay.freeze(at + offset::DEVICE_CAPABILITIES, 4);
    let control = at + offset::DEVICE_CONTROL;
    patch_control(overlay, control, WRITABLE.into_bits(), FORWARDED.into_bits());
    if capabilities.version() >= 2 {
        let control = at + offset::DEVICE_CONTROL_2;
        patch_control(overlay, control, u16::MAX, FORWARDED_2.into_bits());
    }
    let abilities = DeviceCapabilities::from_bits(snapshot.u32(at + offset::DEVICE_CAPABILITIES));
    match abilities.function_level_reset() {
        false => Taken::shown(),
        true => Taken::answering(Resettable(control)),
    }
}

fn capabilities(snapshot: &[u8], at: u16) -> Capabilities {
    Capabilities::from_bits(snapshot.u16(at + offset::CAPABILITIES))
}

/// A register of which the guest writes a copy, and only some bits reach the hardware.
fn patch_control(overlay: &mut Overlay, register: u16, writable: u16, forwarded: u16) {
    overlay.freeze(register, 2);
    overlay.allow_write(register, &writable.to_le_bytes());
    overlay.forward(register, &forwarded.to_le_bytes());
}

impl Area for Resettable {
    fn range(&self) -> Range<u16> {
        self.0..self.0 + 2
    }

    /// A function level reset (§7.5.3.4).
    fn write(&mut self, _overlay: &mut Overlay, at: u16, data: &[u8]) -> Request {
        match DeviceControl::from_bits(with_bytes(0, at, data)).initiate_reset() {
            false => Request::Nothing,
            true => Request::Reset,
        }
    }
}

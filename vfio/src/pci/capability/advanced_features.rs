//! Advanced features (PCI ECN "Advanced Capabilities for Conventional PCI"): a reset for functions without the
//! Express capability.

use std::ops::Range;

use super::kind::{Context, Kind, Taken};
use crate::pci::area::{Area, Request};
use crate::pci::discover::{Capability, ConfigRead};
use crate::pci::overlay::Overlay;
use crate::pci::spec::{advanced_features, capability, capability_id};

pub(super) const KIND: Kind = Kind {
    id: capability_id::ADVANCED_FEATURES,
    is_single: true,
    length: |_, _| (advanced_features::LEN, advanced_features::LEN),
    take,
};

/// The control register of a function that can reset itself.
struct Control(u16);

fn take(context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let at = found.offset + advanced_features::CONTROL;
    overlay.freeze(
        found.offset + capability::HEADER_LEN,
        found.len - capability::HEADER_LEN,
    );
    overlay.replace(at, &[0, 0]);
    let abilities = context
        .snapshot
        .u8(found.offset + advanced_features::CAPABILITIES);
    match abilities & advanced_features::FLR_CAPABLE {
        0 => Taken::shown(),
        _ => Taken::answering(Control(at)),
    }
}

impl Area for Control {
    fn range(&self) -> Range<u16> {
        self.0..self.0 + 1
    }

    fn write(&mut self, _overlay: &mut Overlay, _at: u16, data: &[u8]) -> Request {
        match data
            .iter()
            .any(|byte| byte & advanced_features::INITIATE_FLR != 0)
        {
            true => Request::Reset,
            false => Request::Nothing,
        }
    }
}

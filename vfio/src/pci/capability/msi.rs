//! MSI (PCIe §7.7.1): the model in front of the overlay answers; the hardware is not asked.

use std::ops::Range;
use std::sync::Arc;

use strait_devices::pci::capability::Msi;
use strait_devices::pci::capability::msi::{ENABLE, MESSAGE_CONTROL, MsiShape};
use strait_devices::pci::spec::capability_id;

use super::kind::{Context, Kind, Taken};
use crate::hardware::InterruptKind;
use crate::interrupt::VectorSet;
use crate::pci::area::{Area, Request};
use crate::pci::discover::{Capability, ConfigRead};
use crate::pci::field::{part, with_bytes};
use crate::pci::overlay::Overlay;
use crate::pci::spec::capability;

pub(super) const KIND: Kind = Kind {
    id: capability_id::MSI,
    is_single: true,
    length,
    take,
};

struct MsiArea {
    model: Msi,
    /// Without the header, which is the list's.
    range: Range<u16>,
}

fn length(snapshot: &[u8], offset: u16) -> (u16, u16) {
    let len = MsiShape::from_control(snapshot.u16(offset + MESSAGE_CONTROL)).len_bytes();
    (len, len)
}

fn take(context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let hardware = context.hardware;
    let available = hardware.interrupt(InterruptKind::Msi).count;
    if available == 0 {
        return Taken::hidden();
    }
    let range = found.offset + capability::HEADER_LEN..found.offset + found.len;
    overlay.freeze(range.start, range.end - range.start);
    let shape = MsiShape::from_control(context.snapshot.u16(found.offset + MESSAGE_CONTROL));
    let shape = MsiShape {
        log2_vectors: shape.log2_vectors.min(available.ilog2() as u16),
        ..shape
    };
    let vectors = VectorSet::new(Arc::clone(hardware), InterruptKind::Msi);
    let model = Msi::new(shape, Arc::clone(context.router), Arc::new(vectors));
    Taken::answering(MsiArea { model, range })
}

impl Area for MsiArea {
    fn range(&self) -> Range<u16> {
        self.range.clone()
    }

    fn read(&self, at: u16, data: &mut [u8]) {
        self.model.read(capability::HEADER_LEN + at, data);
    }

    fn write(&mut self, _overlay: &mut Overlay, at: u16, data: &[u8]) -> Request {
        self.model.write(capability::HEADER_LEN + at, data);
        Request::Nothing
    }

    fn reset(&mut self) {
        self.model.reset();
    }

    fn has_messages(&self) -> bool {
        self.model.is_enabled()
    }

    fn turns_messages_on(&self, at: u16, data: &[u8]) -> bool {
        let control = part(capability::HEADER_LEN + at, data, MESSAGE_CONTROL, 2);
        control.is_some_and(|(at, bytes)| with_bytes(0, at, bytes) & ENABLE != 0)
    }
}

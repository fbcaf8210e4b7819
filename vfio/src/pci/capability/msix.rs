//! MSI-X (PCIe §7.7.2): message control here, the table and the pending bits in a BAR; all of them are the
//! model's.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use strait_devices::pci::capability::Msix;
use strait_devices::pci::capability::msix::{CAPABILITY_LEN, ENABLE, MESSAGE_CONTROL, PENDING};
use strait_devices::pci::spec::capability_id;

use super::kind::{Context, Kind, Taken};
use crate::pci::area::{Area, Request};
use crate::pci::discover::Capability;
use crate::pci::field::with_bytes;
use crate::pci::msix_structures::{MsixStructures, MsixWindow};
use crate::pci::overlay::Overlay;
use crate::pci::spec::capability;
use strait_devices::lock;

pub(super) const KIND: Kind = Kind {
    id: capability_id::MSIX,
    is_single: true,
    length: |_, _| (CAPABILITY_LEN, CAPABILITY_LEN),
    take,
};

struct MsixArea {
    structures: MsixStructures,
    model: Arc<Mutex<Msix>>,
    /// Message control; empty where the guest does not find the capability.
    control: Range<u16>,
}

/// Where the guest finds no MSI-X because the user wants none, the model stays behind the hidden table, so that
/// the guest cannot reach the real one.
fn take(context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let hardware = context.hardware;
    let structures = match MsixStructures::new(&**hardware, context.snapshot, found, context.bars) {
        Ok(structures) => structures,
        Err(error) => {
            log::warn!("{}: {error}; the guest will not see MSI-X", hardware.name());
            return Taken::hidden();
        }
    };
    let is_shown = !context.hides_msix;
    let at = found.offset + MESSAGE_CONTROL;
    if is_shown {
        overlay.freeze(
            found.offset + capability::HEADER_LEN,
            found.len - capability::HEADER_LEN,
        );
        overlay.replace(at, &[0, 0]);
        overlay.replace(
            found.offset + PENDING,
            &structures.pending_register().to_le_bytes(),
        );
    }
    let model = structures.model(hardware, Arc::clone(context.router));
    let area = MsixArea {
        structures,
        model,
        control: if is_shown { at..at + 2 } else { at..at },
    };
    Taken {
        is_shown,
        area: Some(Box::new(area)),
    }
}

impl Area for MsixArea {
    fn range(&self) -> Range<u16> {
        self.control.clone()
    }

    fn read(&self, at: u16, data: &mut [u8]) {
        let control = lock(&self.model).control().to_le_bytes();
        data.copy_from_slice(&control[usize::from(at)..][..data.len()]);
    }

    fn write(&mut self, _overlay: &mut Overlay, at: u16, data: &[u8]) -> Request {
        let mut model = lock(&self.model);
        let control = with_bytes(model.control(), at, data);
        model.set_control(control);
        Request::Nothing
    }

    fn reset(&mut self) {
        lock(&self.model).reset();
    }

    fn has_messages(&self) -> bool {
        lock(&self.model).is_enabled()
    }

    fn turns_messages_on(&self, at: u16, data: &[u8]) -> bool {
        with_bytes(0, at, data) & ENABLE != 0
    }

    fn window(&self, bar: u8) -> Option<MsixWindow> {
        self.structures.window(bar, &self.model)
    }
}

//! Vital product data (PCIe §7.9.19): the guest may read the device's storage, and not write it: that would
//! outlive the guest.

use std::ops::Range;
use std::sync::Arc;

use super::kind::{Context, Kind, Taken};
use crate::hardware::{Hardware, HardwareRegion};
use crate::pci::area::{Area, Request};
use crate::pci::discover::Capability;
use crate::pci::overlay::Overlay;
use crate::pci::spec::{capability_id, vpd};
use strait_devices::warning::FirstOnly;

pub(super) const KIND: Kind = Kind {
    id: capability_id::VPD,
    is_single: true,
    length: |_, _| (vpd::LEN, vpd::LEN),
    take,
};

struct Address {
    at: u16,
    hardware: Arc<dyn Hardware>,
    failed: FirstOnly,
}

fn take(context: &Context<'_>, _overlay: &mut Overlay, found: Capability) -> Taken {
    Taken::answering(Address {
        at: found.offset + vpd::ADDRESS,
        hardware: Arc::clone(context.hardware),
        failed: FirstOnly::default(),
    })
}

impl Area for Address {
    fn range(&self) -> Range<u16> {
        self.at..self.at + 2
    }

    /// Starts a read of the storage.
    fn write(&mut self, _overlay: &mut Overlay, _at: u16, data: &[u8]) -> Request {
        if let &[low, high] = data
            && u16::from_le_bytes([low, high]) & vpd::WRITE == 0
            && let Err(error) = self.hardware.write(HardwareRegion::Config, self.at.into(), data)
            && self.failed.pass()
        {
            log::warn!(
                "{}: cannot read vital product data: {error}",
                self.hardware.name()
            );
        }
        Request::Nothing
    }
}

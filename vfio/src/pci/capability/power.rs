//! Power management (PCI Power Management 1.2 §3.2; PCIe §7.5.2).
//!
//! The guest sees power states, the hardware stays in D0: in any other it would answer no access, and the
//! host's power management is not the guest's.

use std::ops::Range;

use strait_devices::pci::spec::capability_id;

use super::kind::{Context, Kind, Taken};
use crate::pci::area::{Area, Request};
use crate::pci::discover::{Capability, ConfigRead};
use crate::pci::overlay::Overlay;
use crate::pci::spec::{capability, power};

pub(super) const KIND: Kind = Kind {
    id: capability_id::POWER,
    is_single: true,
    length: |_, _| (power::LEN, power::LEN),
    take,
};

struct Power {
    control: u16,
    /// Register of the control.
    at: u16,
    capabilities: u16,
}

fn take(context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let offset = found.offset;
    overlay.freeze(
        offset + capability::HEADER_LEN,
        power::LEN - capability::HEADER_LEN,
    );
    let capabilities = context.snapshot.u16(offset + power::CAPABILITIES) & !power::PME_SUPPORT;
    overlay.replace(offset + power::CAPABILITIES, &capabilities.to_le_bytes());
    let at = offset + power::CONTROL;
    overlay.replace(at, &[power::NO_SOFT_RESET as u8, 0, 0, 0]);
    overlay.allow_write(at, &power::STATE.to_le_bytes());
    Taken::answering(Power {
        control: power::NO_SOFT_RESET,
        at,
        capabilities,
    })
}

impl Power {
    fn has_state(&self, control: u16) -> bool {
        match control & power::STATE {
            1 => self.capabilities & power::D1_SUPPORT != 0,
            2 => self.capabilities & power::D2_SUPPORT != 0,
            _ => true,
        }
    }
}

impl Area for Power {
    fn range(&self) -> Range<u16> {
        self.at..self.at + 2
    }

    /// A state the function does not have is not entered.
    fn write(&mut self, overlay: &mut Overlay, _at: u16, _data: &[u8]) -> Request {
        let control = overlay.copy().u16(self.at);
        if self.has_state(control) {
            self.control = control;
        } else {
            overlay.set(self.at, &self.control.to_le_bytes());
        }
        Request::Nothing
    }

    fn reset(&mut self) {
        self.control = power::NO_SOFT_RESET;
    }

    fn is_asleep(&self) -> bool {
        self.control & power::STATE != 0
    }
}

//! What is known of one kind of capability.

use std::sync::Arc;

use strait_devices::irq::MsiRouter;
use strait_devices::pci::bar::Bars;

use crate::hardware::Hardware;
use crate::pci::area::Area;
use crate::pci::discover::Capability;
use crate::pci::overlay::Overlay;

/// One kind of capability.
pub(super) struct Kind {
    /// Its id (PCI Code and ID Assignment §2).
    pub(super) id: u8,
    /// A function has one of it; others are no use to a guest.
    pub(super) is_single: bool,
    /// Bytes that one at this offset of the snapshot needs, and those it takes where there is room.
    pub(super) length: fn(&[u8], u16) -> (u16, u16),
    /// Takes a whole one over.
    pub(super) take: fn(&Context<'_>, &mut Overlay, Capability) -> Taken,
}

/// The function that a capability belongs to.
pub(in crate::pci) struct Context<'a> {
    pub(in crate::pci) hardware: &'a Arc<dyn Hardware>,
    pub(in crate::pci) router: &'a Arc<dyn MsiRouter>,
    /// Its configuration space, read once.
    pub(in crate::pci) snapshot: &'a [u8],
    pub(in crate::pci) bars: &'a Bars,
    /// The user wants the guest to find no MSI-X.
    pub(in crate::pci) hides_msix: bool,
}

/// What became of a capability.
pub(in crate::pci) struct Taken {
    /// The guest finds it in the list.
    pub(in crate::pci) is_shown: bool,
    /// What answers in it, or behind it.
    pub(in crate::pci) area: Option<Box<dyn Area>>,
}

impl Taken {
    /// The guest does not find it.
    pub(super) fn hidden() -> Self {
        Self {
            is_shown: false,
            area: None,
        }
    }

    /// The guest finds it; the overlay is all that answers.
    pub(super) fn shown() -> Self {
        Self {
            is_shown: true,
            area: None,
        }
    }

    /// The guest finds it, with `area` answering.
    pub(super) fn answering(area: impl Area + 'static) -> Self {
        Self {
            is_shown: true,
            area: Some(Box::new(area)),
        }
    }
}

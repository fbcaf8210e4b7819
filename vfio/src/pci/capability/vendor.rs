//! A vendor's own capability (PCIe §7.9.4), which its driver may need: it is the hardware's.

use super::kind::{Context, Kind, Taken};
use crate::pci::discover::{Capability, ConfigRead};
use crate::pci::overlay::Overlay;
use crate::pci::spec::{capability_id, vendor};

pub(super) const KIND: Kind = Kind {
    id: capability_id::VENDOR,
    is_single: false,
    length,
    take,
};

/// Lengths that vendors get wrong do no harm: the next capability limits them.
fn length(snapshot: &[u8], offset: u16) -> (u16, u16) {
    let said = u16::from(snapshot.u8(offset + vendor::LENGTH));
    (vendor::BODY, said.max(vendor::BODY))
}

fn take(_context: &Context<'_>, overlay: &mut Overlay, found: Capability) -> Taken {
    let body = usize::from(found.len.saturating_sub(vendor::BODY));
    overlay.forward(found.offset + vendor::BODY, &vec![0xff; body]);
    Taken::shown()
}

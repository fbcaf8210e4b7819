//! PCI-X (PCI-X Addendum 2.0 §7.2), read from the hardware and written nowhere: how the function behaves on a
//! conventional bus is the host's.

use super::kind::{Kind, Taken};
use crate::pci::spec::{capability, capability_id, pci_x};

pub(super) const KIND: Kind = Kind {
    id: capability_id::PCI_X,
    is_single: false,
    length: |_, _| (capability::HEADER_LEN, pci_x::LEN),
    take: |_, _, _| Taken::shown(),
};

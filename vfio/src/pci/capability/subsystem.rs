//! Subsystem ids (PCI-to-PCI Bridge 1.2, §3.2.5.18), which some endpoints have as well: read-only.

use super::kind::{Kind, Taken};
use crate::pci::spec::{capability, capability_id, subsystem};

pub(super) const KIND: Kind = Kind {
    id: capability_id::SUBSYSTEM,
    is_single: false,
    length: |_, _| (capability::HEADER_LEN, subsystem::LEN),
    take: |_, _, _| Taken::shown(),
};

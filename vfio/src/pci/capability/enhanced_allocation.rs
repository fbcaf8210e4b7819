//! Enhanced allocation (PCIe §7.8.5): fixed BARs, where there are no registers to place them.

use super::kind::{Kind, Taken};
use crate::pci::spec::{capability, capability_id};

pub(super) const KIND: Kind = Kind {
    id: capability_id::ENHANCED_ALLOCATION,
    is_single: false,
    length: |_, _| (capability::HEADER_LEN, capability::HEADER_LEN),
    take: |_, _, _| Taken::hidden(),
};

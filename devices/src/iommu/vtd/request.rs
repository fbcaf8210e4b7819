//! What a guest invalidates, by the queue or by registers (§6.5).

use std::ops::Range;

use super::capability::MAX_ADDRESS_MASK;
use super::spec::registers::{InvalidateAddress, granularity};
use super::spec::tables::PAGE;
use crate::dma::{Iova, RequesterId};

/// Whose context entries an invalidation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContextScope {
    Global,
    Domain(u16),
    /// The domain in such an invalidation does not count: Linux gives 0 for an entry that was not present.
    Device {
        source: u16,
        ignored: u16,
    },
}

impl ContextScope {
    /// `mask` 0 to 3 leaves out none, one, two or three low bits of the function number, from the top.
    pub(super) fn device(source: u16, mask: u8) -> Self {
        let ignored = [0, 0b100, 0b110, 0b111][usize::from(mask & 3)];
        ContextScope::Device { source, ignored }
    }

    /// What a descriptor or CCMD says; `None` for a granularity that does not exist.
    pub(super) fn decode(granularity: u8, domain: u16, source: u16, mask: u8) -> Option<Self> {
        match granularity {
            granularity::GLOBAL => Some(ContextScope::Global),
            granularity::DOMAIN => Some(ContextScope::Domain(domain)),
            granularity::SINGLE => Some(ContextScope::device(source, mask)),
            _ => None,
        }
    }

    /// Whether it names the entry of `id`, whose domain was one and is the other.
    pub(super) fn names(self, id: RequesterId, old_domain: u16, new_domain: u16) -> bool {
        match self {
            ContextScope::Global => true,
            ContextScope::Domain(domain) => domain == old_domain || domain == new_domain,
            ContextScope::Device { source, ignored } => (id.0 ^ source) & !ignored == 0,
        }
    }
}

/// Whose translations an invalidation names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IotlbScope {
    Global,
    Domain(u16),
    Pages(u16, Range<Iova>),
}

impl IotlbScope {
    /// What a descriptor or the IOTLB registers say; `None` for what does not exist, or is more than is offered.
    pub(super) fn decode(granularity: u8, domain: u16, address: InvalidateAddress) -> Option<Self> {
        match granularity {
            granularity::GLOBAL => Some(IotlbScope::Global),
            granularity::DOMAIN => Some(IotlbScope::Domain(domain)),
            granularity::SINGLE if address.mask() <= MAX_ADDRESS_MASK && address.reserved() == 0 => {
                let len_bytes = PAGE << address.mask();
                let start = Iova(address.frame() * PAGE).align_down(len_bytes);
                Some(IotlbScope::Pages(domain, start..start.saturating_add(len_bytes)))
            }
            _ => None,
        }
    }
}

/// Which interrupt entries an invalidation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryScope {
    All,
    Range { first: u32, last: u32 },
}

impl EntryScope {
    /// The 2^`mask` entries, aligned, among which `index` is.
    pub(super) fn range(index: u16, mask: u8) -> Self {
        let len = 1u64 << mask.min(16);
        let first = u64::from(index) & !(len - 1);
        EntryScope::Range {
            first: first as u32,
            last: (first + len - 1) as u32,
        }
    }

    /// Whether it names entry `index`; `None` stands for what goes through no entry, and changes with all of them.
    pub(super) fn names(self, index: Option<u32>) -> bool {
        match self {
            EntryScope::All => true,
            EntryScope::Range { first, last } => index.is_some_and(|index| (first..=last).contains(&index)),
        }
    }
}

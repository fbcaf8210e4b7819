//! From a requester to what its requests walk: root and context tables (§3.4).
//!
//! Every entry is loaded once and then only the copy is used; the guest may write meanwhile. What cannot be
//! read or has reserved bits set is absent.

use vm_memory::GuestAddress;

use super::table::{Table, is_beyond};
use crate::dma::RequesterId;
use crate::iommu::vtd::faults::Reason;
use crate::iommu::vtd::memory::TableMemory;
use crate::iommu::vtd::spec::registers::Capability;
use crate::iommu::vtd::spec::tables::{ContextHigh, ContextLow, PAGE, RootEntry, WIDE_ENTRY, kind};

/// What a context entry says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Requests pass as they are.
    PassThrough,
    /// Requests walk this table.
    Translate(Table),
}

/// The outcome of a context look-up: fault reasons and FPD where there is none.
pub(super) struct Lookup {
    pub(super) domain: u16,
    pub(super) silent: bool,
    pub(super) context: Result<Context, Reason>,
}

impl Lookup {
    fn fault(reason: Reason) -> Self {
        Self {
            domain: 0,
            silent: false,
            context: Err(reason),
        }
    }
}

/// Looks up the context of `requester` in the root table at `root`.
pub(super) fn context(
    memory: &dyn TableMemory,
    root: GuestAddress,
    capability: Capability,
    snoop: bool,
    requester: RequesterId,
) -> Lookup {
    let width = capability.max_guest_width() + 1;
    let (bus, devfn) = (u64::from(requester.0 >> 8), u64::from(requester.0 & 0xff));
    let at = bus * WIDE_ENTRY;
    let (low, high) = (load(memory, root, at), load(memory, root, at + 8));
    let (Some(low), Some(high)) = (low, high) else {
        return Lookup::fault(Reason::RootUnreadable);
    };
    let root = RootEntry::from_bits(low);
    if !root.present() {
        return Lookup::fault(Reason::RootNotPresent);
    }
    if root.reserved() != 0 || high != 0 || is_beyond(root.frame(), width) {
        return Lookup::fault(Reason::RootReserved);
    }
    let (table, at) = (GuestAddress(root.frame() * PAGE), devfn * WIDE_ENTRY);
    let (low, high) = (load(memory, table, at), load(memory, table, at + 8));
    let (Some(low), Some(high)) = (low, high) else {
        return Lookup::fault(Reason::ContextUnreadable);
    };
    let (low, high) = (ContextLow::from_bits(low), ContextHigh::from_bits(high));
    Lookup {
        domain: high.domain(),
        silent: low.silent(),
        context: decode(low, high, capability, width, snoop),
    }
}

fn decode(
    low: ContextLow,
    high: ContextHigh,
    capability: Capability,
    width: u8,
    snoop: bool,
) -> Result<Context, Reason> {
    if !low.present() {
        return Err(Reason::ContextNotPresent);
    }
    // The table of an entry that passes requests is ignored.
    let has_table = low.kind() != kind::PASS_THROUGH;
    let reserved = low.reserved() != 0 || high.reserved() || high.reserved_high() != 0;
    if reserved || has_table && is_beyond(low.frame(), width) {
        return Err(Reason::ContextReserved);
    }
    match low.kind() {
        kind::PASS_THROUGH => return Ok(Context::PassThrough),
        kind::TRANSLATE => {}
        _ => return Err(Reason::ContextInvalid),
    }
    let levels = high.width() + 2;
    if !matches!(levels, 3 | 4) || capability.guest_widths() >> high.width() & 1 == 0 {
        return Err(Reason::ContextInvalid);
    }
    let root = GuestAddress(low.frame() * PAGE);
    Ok(Context::Translate(Table::new(root, levels, width, snoop)))
}

/// A quadword of the table at `table`.
fn load(memory: &dyn TableMemory, table: GuestAddress, offset: u64) -> Option<u64> {
    memory.load(GuestAddress(table.0.saturating_add(offset)))
}

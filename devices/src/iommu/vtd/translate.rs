//! From a device's address to the guest's: root and context tables, then the second stage (§3.4, §3.7).
//!
//! Every entry is loaded once and then only the copy is used; the guest may write meanwhile. What cannot be
//! read or has reserved bits set is absent.

use std::ops::{ControlFlow, Range};

use vm_memory::GuestAddress;

use super::faults::Reason;
use super::memory::TableMemory;
use super::spec::registers::Capability;
use super::spec::tables::{
    ContextHigh, ContextLow, ENTRIES, ENTRY, INTERRUPT_WINDOW, PAGE, PageEntry, RootEntry, WIDE_ENTRY, kind,
    span,
};
use crate::dma::{Access, Iova, RequesterId};

/// What a context entry says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// Requests pass as they are.
    PassThrough,
    /// Requests walk this table.
    Translate(Table),
}

/// A second-stage table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    root: u64,
    levels: u8,
    /// Bits of an address that are looked up: the table's, but at most MGAW.
    width: u8,
    snoop: bool,
    host_width: u8,
}

/// The outcome of a context look-up: fault reasons and FPD where there is none.
pub(crate) struct Lookup {
    pub(crate) domain: u16,
    pub(crate) silent: bool,
    pub(crate) context: Result<Context, Reason>,
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

/// Looks up the context of `requester`.
pub(crate) fn context(
    memory: &dyn TableMemory,
    root_frame: u64,
    capability: Capability,
    snoop: bool,
    requester: RequesterId,
) -> Lookup {
    let width = capability.max_guest_width() + 1;
    let (bus, devfn) = (u64::from(requester.0 >> 8), u64::from(requester.0 & 0xff));
    let at = bus * WIDE_ENTRY;
    let (low, high) = (load(memory, root_frame, at), load(memory, root_frame, at + 8));
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
    let at = devfn * WIDE_ENTRY;
    let (low, high) = (load(memory, root.frame(), at), load(memory, root.frame(), at + 8));
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
    Ok(Context::Translate(Table {
        root: low.frame() * PAGE,
        levels,
        width: width.min(12 + 9 * levels),
        snoop,
        host_width: width,
    }))
}

/// A page that a table maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) iova: u64,
    /// 4 KiB, 2 MiB or 1 GiB.
    pub(crate) len: u64,
    pub(crate) target: u64,
    pub(crate) access: Access,
}

/// What an entry is.
enum Entry {
    Leaf { target: u64, access: Access },
    Table { frame: u64, access: Access },
}

impl Table {
    /// First address that the table does not reach.
    pub(crate) fn limit(&self) -> u64 {
        1 << self.width
    }

    /// The page at `iova`, with the reason if there is none.
    pub(crate) fn lookup(&self, memory: &dyn TableMemory, iova: Iova) -> Result<Leaf, Reason> {
        if iova.0 >= self.limit() {
            return Err(Reason::BeyondWidth);
        }
        let (mut table, mut access) = (self.root, Access::all());
        for level in (1..=self.levels).rev() {
            let index = iova.0 / span(level) % ENTRIES;
            let at = table.saturating_add(index * ENTRY);
            let bits = memory.load(GuestAddress(at)).ok_or(Reason::PagingUnreadable)?;
            match self.entry(bits, level, access)? {
                Entry::Leaf { target, access } => {
                    let len = span(level);
                    return Ok(Leaf {
                        iova: iova.0 & !(len - 1),
                        len,
                        target,
                        access,
                    });
                }
                Entry::Table { frame, access: both } => (table, access) = (frame, both),
            }
        }
        Err(Reason::PagingReserved)
    }

    /// Visits every page in `range` in ascending order, whole pages even where they reach over its ends,
    /// until `visit` breaks or `budget` entries were read. Levels only go down, so a table that points at
    /// itself costs no more than the budget. Tells up to where it came.
    pub(crate) fn walk(
        &self,
        memory: &dyn TableMemory,
        range: &Range<u64>,
        budget: &mut u64,
        visit: &mut dyn FnMut(Leaf) -> ControlFlow<()>,
    ) -> u64 {
        let mut walk = Walk {
            table: self,
            memory,
            range: range.start..range.end.min(self.limit()),
            budget,
            visit,
            at: range.start,
        };
        match walk.level(self.root, self.levels, 0, Access::all()) {
            ControlFlow::Continue(()) => range.end,
            ControlFlow::Break(()) => walk.at,
        }
    }

    /// Decodes an entry of a table at `level`. Rights are those that every level above grants.
    fn entry(&self, bits: u64, level: u8, above: Access) -> Result<Entry, Reason> {
        let entry = PageEntry::from_bits(bits);
        let mut access = Access::empty();
        access.set(Access::READ, entry.read());
        access.set(Access::WRITE, entry.write());
        if access.is_empty() {
            return Err(Reason::Read);
        }
        let is_leaf = level == 1 || entry.large();
        let misplaced = entry.large() && level > 3;
        let snoops = entry.snoop() && !(self.snoop && is_leaf);
        if misplaced || snoops || entry.transient() || is_beyond(entry.frame(), self.host_width) {
            return Err(Reason::PagingReserved);
        }
        let target = entry.frame() * PAGE;
        let access = access & above;
        match is_leaf {
            true if !target.is_multiple_of(span(level)) => Err(Reason::PagingReserved),
            true => Ok(Entry::Leaf { target, access }),
            false => Ok(Entry::Table {
                frame: target,
                access,
            }),
        }
    }
}

struct Walk<'a> {
    table: &'a Table,
    memory: &'a dyn TableMemory,
    range: Range<u64>,
    budget: &'a mut u64,
    visit: &'a mut dyn FnMut(Leaf) -> ControlFlow<()>,
    /// Everything below was visited.
    at: u64,
}

impl Walk<'_> {
    /// One table, whose first entry stands for `base`; calls itself at most three times deep.
    fn level(&mut self, table: u64, level: u8, base: u64, access: Access) -> ControlFlow<()> {
        let len = span(level);
        let first = self.range.start.saturating_sub(base) / len;
        let last = self.range.end.saturating_sub(base).div_ceil(len).min(ENTRIES);
        for index in first..last {
            let iova = base + index * len;
            self.at = self.at.max(iova);
            *self.budget = match self.budget.checked_sub(1) {
                Some(left) => left,
                None => return ControlFlow::Break(()),
            };
            let Some(bits) = self
                .memory
                .load(GuestAddress(table.saturating_add(index * ENTRY)))
            else {
                continue;
            };
            match self.table.entry(bits, level, access) {
                Ok(Entry::Table { frame, access }) if !access.is_empty() => {
                    self.level(frame, level - 1, iova, access)?;
                }
                Ok(Entry::Leaf { target, access }) if !access.is_empty() => {
                    self.at = iova + len;
                    (self.visit)(Leaf {
                        iova,
                        len,
                        target,
                        access,
                    })?;
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}

/// True for addresses that take part in interrupts, not in DMA.
pub(crate) fn is_interrupt(address: u64) -> bool {
    INTERRUPT_WINDOW.contains(&address)
}

fn load(memory: &dyn TableMemory, frame: u64, offset: u64) -> Option<u64> {
    memory.load(GuestAddress((frame * PAGE).saturating_add(offset)))
}

fn is_beyond(frame: u64, width: u8) -> bool {
    frame >> (width - 12) != 0
}

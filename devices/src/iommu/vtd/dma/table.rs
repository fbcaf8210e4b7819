//! From a device's address to the guest's: the second stage of tables (§3.7).
//!
//! Every entry is loaded once and then only the copy is used; the guest may write meanwhile. What cannot be
//! read or has reserved bits set is absent.

use std::ops::{ControlFlow, Range};

use vm_memory::GuestAddress;

use crate::dma::{Access, Iova};
use crate::iommu::vtd::faults::Reason;
use crate::iommu::vtd::memory::TableMemory;
use crate::iommu::vtd::spec::tables::{ENTRIES, ENTRY, INTERRUPT_WINDOW, PAGE, PageEntry, span};

/// A second-stage table of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    root: GuestAddress,
    levels: u8,
    /// Bits of an address that are looked up: the table's, but at most MGAW.
    width: u8,
    snoop: bool,
    host_width: u8,
}

/// A page that a table maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) iova: Iova,
    /// 4 KiB, 2 MiB or 1 GiB.
    pub(super) len_bytes: u64,
    pub(super) target: GuestAddress,
    pub(super) access: Access,
}

/// What an entry is.
enum PagingEntry {
    Leaf { target: GuestAddress, access: Access },
    Table { at: GuestAddress, access: Access },
}

impl Table {
    /// The table at `root`, of 3 or 4 `levels`, for a unit whose addresses have `width` bits. `snoop` tells that
    /// leaves may have the SNP bit.
    pub(super) fn new(root: GuestAddress, levels: u8, width: u8, snoop: bool) -> Self {
        Self {
            root,
            levels,
            width: width.min(12 + 9 * levels),
            snoop,
            host_width: width,
        }
    }

    /// First address that the table does not reach.
    fn limit(&self) -> Iova {
        Iova(1 << self.width)
    }

    /// The page at `iova`, with the reason if there is none.
    pub(super) fn lookup(&self, memory: &dyn TableMemory, iova: Iova) -> Result<Leaf, Reason> {
        if iova >= self.limit() {
            return Err(Reason::BeyondWidth);
        }
        let (mut table, mut access) = (self.root, Access::all());
        for level in (1..=self.levels).rev() {
            let index = iova.0 / span(level) % ENTRIES;
            let bits = load(memory, table, index).ok_or(Reason::PagingUnreadable)?;
            match self.entry(bits, level, access)? {
                PagingEntry::Leaf { target, access } => {
                    let len_bytes = span(level);
                    return Ok(Leaf {
                        iova: iova.align_down(len_bytes),
                        len_bytes,
                        target,
                        access,
                    });
                }
                PagingEntry::Table { at, access: both } => (table, access) = (at, both),
            }
        }
        Err(Reason::PagingReserved)
    }

    /// Visits every page in `range` in ascending order, whole pages even where they reach over its ends,
    /// until `visit` breaks or `budget` entries were read. Levels only go down, so a table that points at
    /// itself costs no more than the budget. Tells up to where it came.
    pub(super) fn walk(
        &self,
        memory: &dyn TableMemory,
        range: &Range<Iova>,
        budget: &mut u64,
        visit: &mut dyn FnMut(Leaf) -> ControlFlow<()>,
    ) -> Iova {
        let mut walk = Walk {
            table: self,
            memory,
            range: range.start.0..range.end.min(self.limit()).0,
            budget,
            visit,
            at: range.start.0,
        };
        match walk.level(self.root, self.levels, 0, Access::all()) {
            ControlFlow::Continue(()) => range.end,
            ControlFlow::Break(()) => Iova(walk.at),
        }
    }

    /// Decodes an entry of a table at `level`. Rights are those that every level above grants.
    fn entry(&self, bits: u64, level: u8, above: Access) -> Result<PagingEntry, Reason> {
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
        let target = GuestAddress(entry.frame() * PAGE);
        let access = access & above;
        match is_leaf {
            true if !target.0.is_multiple_of(span(level)) => Err(Reason::PagingReserved),
            true => Ok(PagingEntry::Leaf { target, access }),
            false => Ok(PagingEntry::Table { at: target, access }),
        }
    }
}

/// Plain numbers are device addresses here.
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
    fn level(&mut self, table: GuestAddress, level: u8, base: u64, access: Access) -> ControlFlow<()> {
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
            let Some(bits) = load(self.memory, table, index) else {
                continue;
            };
            match self.table.entry(bits, level, access) {
                Ok(PagingEntry::Table { at, access }) if !access.is_empty() => {
                    self.level(at, level - 1, iova, access)?;
                }
                Ok(PagingEntry::Leaf { target, access }) if !access.is_empty() => {
                    self.at = iova + len;
                    (self.visit)(Leaf {
                        iova: Iova(iova),
                        len_bytes: len,
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
pub(super) fn is_interrupt(address: GuestAddress) -> bool {
    INTERRUPT_WINDOW.contains(&address.0)
}

/// Entry `index` of a table.
fn load(memory: &dyn TableMemory, table: GuestAddress, index: u64) -> Option<u64> {
    memory.load(GuestAddress(table.0.saturating_add(index * ENTRY)))
}

/// Whether the page of number `frame` lies beyond what addresses of `width` bits reach.
pub(super) fn is_beyond(frame: u64, width: u8) -> bool {
    frame >> (width - 12) != 0
}

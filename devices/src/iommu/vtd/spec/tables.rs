//! Root, context and second-stage tables (§9), legacy mode.

use bitfield_struct::bitfield;

/// Bytes of a table, and of the smallest page.
pub(crate) const PAGE: u64 = 1 << 12;
/// Bytes of a root or context entry.
pub(crate) const WIDE_ENTRY: u64 = 16;
/// Bytes of a paging entry.
pub(crate) const ENTRY: u64 = 8;
/// Index bits of one level.
pub(crate) const LEVEL_BITS: u32 = 9;
/// Entries of a paging table.
pub(crate) const ENTRIES: u64 = 1 << LEVEL_BITS;

/// The low quadword of a root entry (§9.1).
#[bitfield(u64)]
pub(crate) struct RootEntry {
    pub(crate) present: bool,
    #[bits(11)]
    pub(crate) reserved: u16,
    #[bits(52)]
    pub(crate) frame: u64,
}

/// The low quadword of a context entry (§9.3).
#[bitfield(u64)]
pub(crate) struct ContextLow {
    pub(crate) present: bool,
    /// FPD: faults of this entry are not recorded.
    pub(crate) silent: bool,
    /// TT: what becomes of requests, see [`kind`].
    #[bits(2)]
    pub(crate) kind: u8,
    pub(crate) reserved: u8,
    /// SLPTPTR: page of the second-stage table.
    #[bits(52)]
    pub(crate) frame: u64,
}

/// The high quadword of a context entry (§9.3).
#[bitfield(u64)]
pub(crate) struct ContextHigh {
    /// AW: 1 for 3 levels, 2 for 4.
    #[bits(3)]
    pub(crate) width: u8,
    #[bits(4)]
    pub(crate) available: u8,
    pub(crate) reserved: bool,
    pub(crate) domain: u16,
    #[bits(40)]
    pub(crate) reserved_high: u64,
}

/// Translation types of a context entry.
pub(crate) mod kind {
    /// Untranslated requests walk the second stage, others are blocked.
    pub(crate) const TRANSLATE: u8 = 0;
    /// Untranslated requests pass as they are.
    pub(crate) const PASS_THROUGH: u8 = 2;
}

/// A second-stage paging entry (§9.8).
#[bitfield(u64)]
pub(crate) struct PageEntry {
    pub(crate) read: bool,
    pub(crate) write: bool,
    #[bits(5)]
    pub(crate) ignored: u8,
    /// PS: a leaf above level 1.
    pub(crate) large: bool,
    #[bits(3)]
    pub(crate) ignored_low: u8,
    /// SNP: accesses snoop the caches.
    pub(crate) snoop: bool,
    #[bits(40)]
    pub(crate) frame: u64,
    #[bits(10)]
    pub(crate) ignored_high: u16,
    /// TM: a hint that needs device TLBs.
    pub(crate) transient: bool,
    pub(crate) ignored_top: bool,
}

/// Bytes that one entry of a table at `level` (1 is the lowest) spans.
pub(crate) const fn span(level: u8) -> u64 {
    1 << (12 + LEVEL_BITS * (level as u32 - 1))
}

/// Addresses of interrupt requests; DMA never reaches memory there (§3.14).
pub(crate) const INTERRUPT_WINDOW: std::ops::Range<u64> = 0xfee0_0000..0xfef0_0000;

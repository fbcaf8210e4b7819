//! Invalidation descriptors, 128 bits each (§6.5.2).

use bitfield_struct::bitfield;

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: u64 = 16;

/// Types: bits 3:0, and 11:9 of newer revisions.
pub(crate) mod kind {
    pub(crate) const CONTEXT: u8 = 1;
    pub(crate) const IOTLB: u8 = 2;
    pub(crate) const INTERRUPT_ENTRY: u8 = 4;
    pub(crate) const WAIT: u8 = 5;
}

/// What all descriptors begin with.
#[bitfield(u64)]
pub(crate) struct Head {
    #[bits(4)]
    pub(crate) kind: u8,
    #[bits(5)]
    __: u8,
    #[bits(3)]
    pub(crate) kind_high: u8,
    #[bits(52)]
    __: u64,
}

/// Descriptor of a context-cache invalidation (§6.5.2.1).
#[bitfield(u64)]
pub(crate) struct ContextDescriptor {
    #[bits(4)]
    pub(crate) kind: u8,
    #[bits(2)]
    pub(crate) granularity: u8,
    #[bits(10)]
    pub(crate) reserved: u16,
    pub(crate) domain: u16,
    pub(crate) source: u16,
    #[bits(2)]
    pub(crate) function_mask: u8,
    #[bits(14)]
    pub(crate) reserved_high: u16,
}

/// IOTLB invalidation, low quadword (§6.5.2.3); the high one is [`super::registers::InvalidateAddress`].
#[bitfield(u64)]
pub(crate) struct IotlbDescriptor {
    #[bits(4)]
    pub(crate) kind: u8,
    #[bits(2)]
    pub(crate) granularity: u8,
    pub(crate) drain_writes: bool,
    pub(crate) drain_reads: bool,
    pub(crate) reserved: u8,
    pub(crate) domain: u16,
    pub(crate) reserved_high: u32,
}

/// Interrupt entry cache invalidation (§6.5.2.7).
#[bitfield(u64)]
pub(crate) struct InterruptEntryDescriptor {
    #[bits(4)]
    pub(crate) kind: u8,
    /// G: entries by index, not all of them.
    pub(crate) by_index: bool,
    #[bits(22)]
    pub(crate) reserved: u32,
    /// IM: names 2^value entries, aligned.
    #[bits(5)]
    pub(crate) mask: u8,
    pub(crate) index: u16,
    pub(crate) reserved_high: u16,
}

/// Invalidation wait, low quadword (§6.5.2.8); the high one is an address.
#[bitfield(u64)]
pub(crate) struct WaitDescriptor {
    #[bits(4)]
    pub(crate) kind: u8,
    /// IF: the guest wants an interrupt.
    pub(crate) interrupt: bool,
    /// SW: the guest wants the status stored.
    pub(crate) store: bool,
    /// FN: descriptors behind it wait for it.
    pub(crate) fence: bool,
    /// PD: page requests are drained, too.
    pub(crate) drain_pages: bool,
    #[bits(24)]
    pub(crate) reserved: u32,
    pub(crate) data: u32,
}

/// Status addresses are doubleword aligned.
pub(crate) const STATUS_ADDRESS: u64 = !3;

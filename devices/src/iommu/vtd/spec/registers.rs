//! The register page (§11.4).

use bitfield_struct::bitfield;

/// Offsets of registers in the page; 64-bit ones where nothing else is said.
pub(crate) mod offset {
    /// VER, 32 bits (§11.4.1).
    pub(crate) const VERSION: u64 = 0x00;
    pub(crate) const CAPABILITY: u64 = 0x08;
    pub(crate) const EXTENDED_CAPABILITY: u64 = 0x10;
    /// GCMD, 32 bits; GSTS follows it.
    pub(crate) const GLOBAL_COMMAND: u64 = 0x18;
    pub(crate) const ROOT_TABLE_ADDRESS: u64 = 0x20;
    pub(crate) const CONTEXT_COMMAND: u64 = 0x28;
    /// A reserved doubleword, then FSTS.
    pub(crate) const FAULT_STATUS: u64 = 0x30;
    /// FECTL, and FEDATA in the upper half.
    pub(crate) const FAULT_EVENT_CONTROL: u64 = 0x38;
    /// FEADDR, and FEUADDR in the upper half.
    pub(crate) const FAULT_EVENT_ADDRESS: u64 = 0x40;
    pub(crate) const QUEUE_HEAD: u64 = 0x80;
    pub(crate) const QUEUE_TAIL: u64 = 0x88;
    pub(crate) const QUEUE_ADDRESS: u64 = 0x90;
    /// A reserved doubleword, then ICS.
    pub(crate) const COMPLETION_STATUS: u64 = 0x98;
    /// IECTL, and IEDATA in the upper half.
    pub(crate) const COMPLETION_EVENT_CONTROL: u64 = 0xa0;
    /// IEADDR, and IEUADDR in the upper half.
    pub(crate) const COMPLETION_EVENT_ADDRESS: u64 = 0xa8;
    pub(crate) const REMAP_TABLE_ADDRESS: u64 = 0xb8;
    /// IVA, at 16 times ECAP.IRO.
    pub(crate) const INVALIDATE_ADDRESS: u64 = 0xf0;
    /// The IOTLB register, which follows IVA.
    pub(crate) const IOTLB: u64 = 0xf8;
    /// FRCD, at 16 times CAP.FRO, two quadwords each.
    pub(crate) const FAULT_RECORDS: u64 = 0x220;
}

/// Version 1.0 of the architecture.
pub(crate) const VERSION_1_0: u32 = 0x10;
/// How many fault recording registers there are.
pub(crate) const FAULT_RECORDS: usize = 8;

/// CAP: what the unit can do (§11.4.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct Capability {
    /// ND: 2^(4 + 2 * value) domains.
    #[bits(3)]
    pub(crate) domains: u8,
    pub(crate) advanced_fault_log: bool,
    pub(crate) write_buffer_flush: bool,
    pub(crate) protected_low: bool,
    pub(crate) protected_high: bool,
    /// CM: what becomes present is invalidated, too.
    pub(crate) caching_mode: bool,
    /// SAGAW: bit 1 for 3 levels, bit 2 for 4.
    #[bits(5)]
    pub(crate) guest_widths: u8,
    #[bits(3)]
    __: u8,
    /// MGAW: width in bits less one.
    #[bits(6)]
    pub(crate) max_guest_width: u8,
    pub(crate) zero_length_read: bool,
    __: bool,
    /// FRO, in units of 16 bytes.
    #[bits(10)]
    pub(crate) fault_record_offset: u16,
    /// SLLPS: bit 0 for 2 MiB, bit 1 for 1 GiB.
    #[bits(4)]
    pub(crate) large_pages: u8,
    __: bool,
    /// PSI: ranges of pages can be invalidated.
    pub(crate) page_selective: bool,
    /// NFR: number of fault records less one.
    pub(crate) fault_records: u8,
    /// MAMV: the largest AM of an invalidation.
    #[bits(6)]
    pub(crate) max_address_mask: u8,
    pub(crate) drain_writes: bool,
    pub(crate) drain_reads: bool,
    __: u8,
}

/// ECAP: what else it can do (§11.4.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct ExtendedCapability {
    /// C: table walks snoop the CPU's caches.
    pub(crate) coherent: bool,
    pub(crate) queued_invalidation: bool,
    pub(crate) device_tlb: bool,
    pub(crate) interrupt_remapping: bool,
    /// EIM: 32-bit APIC ids.
    pub(crate) extended_interrupts: bool,
    __: bool,
    /// PT: a context entry can pass requests.
    pub(crate) pass_through: bool,
    /// SC: paging entries can have the SNP bit.
    pub(crate) snoop_control: bool,
    /// IRO, in units of 16 bytes.
    #[bits(10)]
    pub(crate) iotlb_offset: u16,
    #[bits(2)]
    __: u8,
    /// MHMV: the largest IM of an invalidation.
    #[bits(4)]
    pub(crate) max_handle_mask: u8,
    #[bits(40)]
    __: u64,
}

/// GCMD and GSTS, whose bits stand in the same places (§11.4.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(crate) struct Global {
    #[bits(23)]
    __: u32,
    /// CFI: messages in the old format pass.
    pub(crate) compatibility_interrupts: bool,
    /// SIRTP, IRTPS: the interrupt table is latched.
    pub(crate) remap_table: bool,
    /// IRE: interrupts are remapped.
    pub(crate) interrupt_remapping: bool,
    /// QIE: the queue is in use.
    pub(crate) queue: bool,
    pub(crate) write_buffer_flush: bool,
    pub(crate) advanced_fault_log: bool,
    pub(crate) set_fault_log: bool,
    /// SRTP, RTPS: the root table is latched.
    pub(crate) root_table: bool,
    /// TE: requests are translated.
    pub(crate) translation: bool,
}

/// RTADDR: where the root table is (§11.4.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct RootTableAddress {
    #[bits(10)]
    __: u16,
    /// TTM; 0 is legacy mode.
    #[bits(2)]
    pub(crate) mode: u8,
    #[bits(52)]
    pub(crate) frame: u64,
}

/// How much an invalidation covers; context (§11.4.6.1), IOTLB (§11.4.6.2) and their descriptors agree.
pub(crate) mod granularity {
    pub(crate) const GLOBAL: u8 = 1;
    pub(crate) const DOMAIN: u8 = 2;
    /// Device for contexts, page for the IOTLB.
    pub(crate) const SINGLE: u8 = 3;
}

/// CCMD: invalidates context entries (§11.4.6.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct ContextCommand {
    pub(crate) domain: u16,
    pub(crate) source: u16,
    #[bits(2)]
    pub(crate) function_mask: u8,
    #[bits(25)]
    __: u32,
    /// CAIG: the granularity of what was done.
    #[bits(2)]
    pub(crate) actual: u8,
    /// CIRG: the granularity that is asked for.
    #[bits(2)]
    pub(crate) requested: u8,
    /// ICC: written 1 to begin, 0 when it is done.
    pub(crate) busy: bool,
}

/// IOTLB: invalidates translations (§11.4.6.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct IotlbCommand {
    __: u32,
    pub(crate) domain: u16,
    pub(crate) drain_writes: bool,
    pub(crate) drain_reads: bool,
    #[bits(7)]
    __: u8,
    /// IAIG: the granularity of what was done.
    #[bits(2)]
    pub(crate) actual: u8,
    __: bool,
    /// IIRG: the granularity that is asked for.
    #[bits(2)]
    pub(crate) requested: u8,
    __: bool,
    /// IVT: written 1 to begin, 0 when it is done.
    pub(crate) busy: bool,
}

/// IVA (§11.4.6.3), and the second half of an IOTLB descriptor (§6.5.2.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct InvalidateAddress {
    /// AM: the range has 2^value pages.
    #[bits(6)]
    pub(crate) mask: u8,
    /// IH: only leaves changed.
    pub(crate) leaf_hint: bool,
    #[bits(5)]
    pub(crate) reserved: u8,
    #[bits(52)]
    pub(crate) frame: u64,
}

/// FSTS: what went wrong (§11.4.7.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(crate) struct FaultStatus {
    /// PFO: there was no record left.
    pub(crate) overflow: bool,
    /// PPF: a record holds a fault.
    pub(crate) pending: bool,
    #[bits(2)]
    __: u8,
    /// IQE: the queue stopped at what it cannot obey.
    pub(crate) queue_error: bool,
    #[bits(3)]
    __: u8,
    /// FRI: the record with the first fault.
    pub(crate) first: u8,
    __: u16,
}

/// FECTL and IECTL (§11.4.7.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(crate) struct EventControl {
    #[bits(30)]
    __: u32,
    /// IP: an event waits for its mask.
    pub(crate) pending: bool,
    /// IM: events are held back.
    pub(crate) masked: bool,
}

/// The upper quadword of FRCD (§11.4.7.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct FaultRecord {
    pub(crate) source: u16,
    __: u16,
    pub(crate) reason: u8,
    #[bits(22)]
    __: u32,
    /// T: the request was a read.
    pub(crate) read: bool,
    /// F: the record holds a fault.
    pub(crate) fault: bool,
}

/// IQH and IQT: a byte offset in the queue (§11.4.8.1).
pub(crate) const QUEUE_OFFSET: u64 = 0x7_fff0;

/// IQA: where the queue is (§11.4.8.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct QueueAddress {
    /// QS: the ring has 2^value pages.
    #[bits(3)]
    pub(crate) size: u8,
    __: u8,
    /// DW: descriptors have 256 bits.
    pub(crate) wide: bool,
    #[bits(52)]
    pub(crate) frame: u64,
}

/// ICS: a wait was completed (§11.4.8.4).
pub(crate) const WAIT_COMPLETE: u32 = 1;

/// IRTA: where the interrupt table is (§11.4.9).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct RemapTableAddress {
    /// S: 2^(value + 1) entries.
    #[bits(4)]
    pub(crate) size: u8,
    #[bits(7)]
    __: u8,
    /// EIME: APIC ids have 32 bits.
    pub(crate) extended: bool,
    #[bits(52)]
    pub(crate) frame: u64,
}

/// FEDATA and IEDATA use their low half.
pub(crate) const EVENT_DATA: u32 = 0xffff;
/// FEADDR and IEADDR are doubleword aligned.
pub(crate) const EVENT_ADDRESS: u32 = !3;
/// Bits of RTADDR that are not reserved.
pub(crate) const ROOT_TABLE_WRITABLE: u64 = !0x3ff;
/// Bits of IQA that are not reserved.
pub(crate) const QUEUE_WRITABLE: u64 = !0x7f8;
/// Bits of IRTA that are not reserved.
pub(crate) const REMAP_TABLE_WRITABLE: u64 = !0x7f0;

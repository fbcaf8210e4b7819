//! Interrupt requests and the interrupt remapping table (§5.1, §9.9).

use bitfield_struct::bitfield;

/// Bytes of a table entry.
pub(crate) const IRTE: u64 = 16;

/// Address of an interrupt request in remappable format (§5.1.2.2).
#[bitfield(u32)]
pub(crate) struct RequestAddress {
    #[bits(2)]
    __: u8,
    pub(crate) handle_15: bool,
    /// SHV: data holds a subhandle.
    pub(crate) has_subhandle: bool,
    /// Remappable format; clear in compatibility format.
    pub(crate) remappable: bool,
    #[bits(15)]
    pub(crate) handle: u16,
    #[bits(12)]
    pub(crate) window: u16,
}

/// The top bits of an interrupt address.
pub(crate) const WINDOW: u16 = 0xfee;

/// Data of a request with a subhandle.
#[bitfield(u32)]
pub(crate) struct RequestData {
    pub(crate) subhandle: u16,
    pub(crate) reserved: u16,
}

/// The low quadword of an entry in remapped format (§9.9).
#[bitfield(u64)]
pub(crate) struct IrteLow {
    pub(crate) present: bool,
    /// FPD: faults of this entry are not recorded.
    pub(crate) silent: bool,
    /// DM: the destination is logical.
    pub(crate) logical: bool,
    /// RH: one of several CPUs may take it.
    pub(crate) redirection_hint: bool,
    /// TM: the interrupt is level-triggered.
    pub(crate) level: bool,
    /// DLM: fixed, lowest priority, NMI and others.
    #[bits(3)]
    pub(crate) delivery_mode: u8,
    #[bits(4)]
    pub(crate) available: u8,
    #[bits(3)]
    pub(crate) reserved: u8,
    /// IM: the entry is for posted interrupts.
    pub(crate) posted: bool,
    pub(crate) vector: u8,
    pub(crate) reserved_high: u8,
    pub(crate) destination: u32,
}

/// The high quadword of an entry.
#[bitfield(u64)]
pub(crate) struct IrteHigh {
    pub(crate) source: u16,
    /// SQ: low function bits that do not count.
    #[bits(2)]
    pub(crate) qualifier: u8,
    /// SVT: how the source is checked.
    #[bits(2)]
    pub(crate) validation: u8,
    #[bits(44)]
    pub(crate) reserved: u64,
}

/// How the source of a request is verified.
pub(crate) mod validation {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const SOURCE: u8 = 1;
    pub(crate) const BUS: u8 = 2;
}

/// Bits of a source id that count, by qualifier.
pub(crate) const SOURCE_MASKS: [u16; 4] = [0xffff, 0xfffb, 0xfff9, 0xfff8];

/// Low address of a message to local APICs (Intel SDM vol. 3 §11.11.1).
#[bitfield(u32)]
pub(crate) struct MessageAddress {
    #[bits(2)]
    __: u8,
    pub(crate) logical: bool,
    pub(crate) redirection_hint: bool,
    __: u8,
    pub(crate) destination: u8,
    #[bits(12)]
    pub(crate) window: u16,
}

/// Data of a message to local APICs (§11.11.2).
#[bitfield(u32)]
pub(crate) struct MessageData {
    pub(crate) vector: u8,
    #[bits(3)]
    pub(crate) delivery_mode: u8,
    #[bits(3)]
    __: u8,
    pub(crate) assert: bool,
    pub(crate) level: bool,
    __: u16,
}

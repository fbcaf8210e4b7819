//! Offsets and bits of configuration space. Layout only; section numbers are of PCI Express Base 5.0.

pub mod express;

/// Bytes of a PCI Express configuration space (§7.2.2).
pub const CONFIG_SPACE_SIZE: usize = 4096;

/// Registers common to both header types (§7.5.1.1).
pub mod header {
    /// Vendor id, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device id, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits, see [`super::command`].
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits, see [`super::status`].
    pub const STATUS: u16 = 0x06;
    /// Revision of the device, 8 bits.
    pub const REVISION_ID: u16 = 0x08;
    /// Class code, 24 bits: programming interface, subclass, class.
    pub const CLASS_CODE: u16 = 0x09;
    /// Cache line size, 8 bits, writable without effect.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// Header type, 8 bits; bit 7 says that there are more functions.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// The multi-function bit of the header type.
    pub const MULTI_FUNCTION: u8 = 0x80;
    /// First of six BARs (type 0) or of two (type 1).
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor id (type 0), 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Expansion ROM BAR of a type 0 header, 32 bits.
    pub const ROM_BAR: u16 = 0x30;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, 8 bits of memory for software.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, 8 bits: 0 none, 1 to 4 INTA to INTD.
    pub const INTERRUPT_PIN: u16 = 0x3d;
}

/// Bits of the command register (§7.5.1.1.3).
pub mod command {
    /// The function answers I/O cycles.
    pub const IO: u16 = 1 << 0;
    /// The function answers memory cycles.
    pub const MEMORY: u16 = 1 << 1;
    /// May issue DMA and MSI.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// The function reports parity errors.
    pub const PARITY: u16 = 1 << 6;
    /// The function reports system errors.
    pub const SERR: u16 = 1 << 8;
    /// The function keeps its INTx wire silent.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register (§7.5.1.1.4).
pub mod status {
    /// The function has something to say by its INTx wire, silent or not.
    pub const INTERRUPT: u16 = 1 << 3;
    /// The capability list exists.
    pub const CAPABILITIES: u16 = 1 << 4;
}

/// Type 1 header of a bridge (§7.5.1.3).
pub mod bridge {
    /// Primary bus number, 8 bits.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Secondary bus number, 8 bits.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Highest bus number behind the bridge, 8 bits.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// I/O window base and limit, 8 bits each: address bits 15:12.
    pub const IO_BASE: u16 = 0x1c;
    /// Memory window base and limit, 16 bits each: address bits 31:20.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Prefetchable window base and limit, 16 bits each; low bits say 64-bit.
    pub const PREFETCH_BASE: u16 = 0x24;
    /// Upper 32 bits of the prefetchable base, then of its limit.
    pub const PREFETCH_BASE_UPPER: u16 = 0x28;
    /// Upper 16 bits of the I/O base and limit.
    pub const IO_BASE_UPPER: u16 = 0x30;
    /// Bridge control, 16 bits.
    pub const BRIDGE_CONTROL: u16 = 0x3e;
    /// Secondary bus reset, in bridge control.
    pub const SECONDARY_BUS_RESET: u16 = 1 << 6;
    /// Granularity of both memory windows, bytes.
    pub const MEMORY_WINDOW_ALIGN: u64 = 1 << 20;
    /// Granularity of the I/O window, bytes.
    pub const IO_WINDOW_ALIGN: u64 = 1 << 12;
}

/// Bits of a base address register (§7.5.1.2.1).
pub mod bar {
    /// This BAR decodes I/O ports.
    pub const IO: u32 = 1 << 0;
    /// Memory BAR of 64 bits: the next register is the upper half.
    pub const MEMORY_64: u32 = 1 << 2;
    /// Memory BAR without read side effects.
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// The type bits of a memory BAR.
    pub const MEMORY_FLAGS: u32 = 0xf;
    /// The type bits of an I/O BAR.
    pub const IO_FLAGS: u32 = 0x3;
}

/// Bits of the expansion ROM base address register (§7.5.1.2.4).
pub mod rom_bar {
    /// The ROM decodes its addresses.
    pub const ENABLE: u32 = 1 << 0;
    /// Bits that hold an address; a ROM has 2 KiB or more.
    pub const ADDRESS: u32 = !0x7ff;
}

/// Capability ids (PCI Code and ID Assignment §2).
pub mod capability_id {
    /// Power management: D0 to D3.
    pub const POWER: u8 = 0x01;
    /// Message signalled interrupts with one address for all vectors.
    pub const MSI: u8 = 0x05;
    /// PCI Express: what link, slot and device can do.
    pub const EXPRESS: u8 = 0x10;
    /// Message signalled interrupts with a table in a BAR.
    pub const MSIX: u8 = 0x11;
}

/// Extended capability ids (PCI Code and ID Assignment §3).
pub mod extended_capability_id {
    /// Access control services, which keep functions of a slot apart.
    pub const ACS: u16 = 0x000d;
    /// Alternative routing id: function numbers of 8 bits.
    pub const ARI: u16 = 0x000e;
    /// Single root I/O virtualization.
    pub const SRIOV: u16 = 0x0010;
    /// BARs whose sizes software may choose.
    pub const RESIZABLE_BAR: u16 = 0x0015;
    /// The same for the BARs of virtual functions.
    pub const VF_RESIZABLE_BAR: u16 = 0x0024;
}

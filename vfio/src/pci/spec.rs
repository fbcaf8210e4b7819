//! Registers of capabilities that a passed-through function takes over. Layout only; offsets are bytes from
//! the capability's start, section numbers are of PCI Express Base 5.0.

/// What every capability has (§7.5.1.1.11).
pub(crate) mod capability {
    /// Bytes of id and next pointer.
    pub(crate) const HEADER_LEN: u16 = 2;
    /// The next pointer, 8 bits; its low two bits are reserved.
    pub(crate) const NEXT: u16 = 1;
    /// No capability stands below the type 0 header's end.
    pub(crate) const FIRST: u16 = 0x40;
    /// Where the space that only capabilities of the first kind reach ends.
    pub(crate) const END: u16 = 0x100;
}

/// Any extended capability (§7.6.3).
pub(crate) mod extended {
    /// Bytes of id, version and next pointer.
    pub(crate) const HEADER_LEN: u16 = 4;
    /// The first one stands here.
    pub(crate) const FIRST: u16 = 0x100;
    /// Where extended configuration space ends.
    pub(crate) const END: u16 = 0x1000;
}

/// Capability ids beyond those of the devices crate (PCI Code and ID Assignment §2).
pub(crate) mod capability_id {
    /// Vital product data, read through two registers.
    pub(crate) const VPD: u8 = 0x03;
    /// PCI-X, of a bus that is gone.
    pub(crate) const PCI_X: u8 = 0x07;
    /// Vendor specific, with a length byte after the header.
    pub(crate) const VENDOR: u8 = 0x09;
    /// Subsystem ids of a bridge.
    pub(crate) const SUBSYSTEM: u8 = 0x0d;
    /// Advanced features: FLR for functions without the Express capability.
    pub(crate) const ADVANCED_FEATURES: u8 = 0x13;
    /// Enhanced allocation: BARs outside the BAR registers.
    pub(crate) const ENHANCED_ALLOCATION: u8 = 0x14;
}

/// Extended capability ids beyond those of the devices crate (PCI Code and ID Assignment §3).
pub(crate) mod extended_capability_id {
    /// A capability of the vendor's own.
    pub(crate) const VENDOR: u16 = 0x000b;
    /// Address translation services: a TLB in the device.
    pub(crate) const ATS: u16 = 0x000f;
    /// Page requests, which need such a TLB.
    pub(crate) const PAGE_REQUEST: u16 = 0x0013;
    /// Process address space ids.
    pub(crate) const PASID: u16 = 0x001b;
}

/// Power management (PCI Power Management 1.2 §3.2; §7.5.2).
pub(crate) mod power {
    /// Bytes of the capability.
    pub(crate) const LEN: u16 = 8;
    /// Where the capabilities stand, 16 bits.
    pub(crate) const CAPABILITIES: u16 = 2;
    /// States in which PME can be raised.
    pub(crate) const PME_SUPPORT: u16 = 0xf800;
    /// The function has state D1.
    pub(crate) const D1_SUPPORT: u16 = 1 << 9;
    /// The function has state D2.
    pub(crate) const D2_SUPPORT: u16 = 1 << 10;
    /// Control and status, 16 bits.
    pub(crate) const CONTROL: u16 = 4;
    /// The power state, 0 for D0 to 3 for D3hot.
    pub(crate) const STATE: u16 = 0x3;
    /// Returning from D3hot resets nothing.
    pub(crate) const NO_SOFT_RESET: u16 = 1 << 3;
}

/// Vital product data (§7.9.19).
pub(crate) mod vpd {
    /// Bytes of the capability.
    pub(crate) const LEN: u16 = 8;
    /// Where the address stands, 16 bits.
    pub(crate) const ADDRESS: u16 = 2;
    /// Bit 15 of the address: written 1 it starts a write to the device's storage.
    pub(crate) const WRITE: u16 = 1 << 15;
}

/// PCI-X (PCI-X Addendum 2.0 §7.2).
pub(crate) mod pci_x {
    /// Bytes of the capability, up to its status.
    pub(crate) const LEN: u16 = 8;
}

/// Subsystem ids (PCI-to-PCI Bridge 1.2 §3.2.5.18).
pub(crate) mod subsystem {
    /// Bytes of the capability.
    pub(crate) const LEN: u16 = 8;
}

/// Vendor specific capability (§7.9.4).
pub(crate) mod vendor {
    /// Length of the capability, 8 bits.
    pub(crate) const LENGTH: u16 = 2;
    /// What the vendor defines begins here.
    pub(crate) const BODY: u16 = 3;
}

/// Advanced features (PCI ECN "Advanced Capabilities for Conventional PCI").
pub(crate) mod advanced_features {
    /// Bytes of the capability.
    pub(crate) const LEN: u16 = 6;
    /// Where the capabilities stand, 8 bits.
    pub(crate) const CAPABILITIES: u16 = 3;
    /// Function level reset exists.
    pub(crate) const FLR_CAPABLE: u8 = 1 << 1;
    /// Where the control register stands, 8 bits.
    pub(crate) const CONTROL: u16 = 4;
    /// Initiates a function level reset; reads as zero.
    pub(crate) const INITIATE_FLR: u8 = 1 << 0;
}

/// Type 0 header (§7.5.1.2).
pub(crate) mod header {
    /// Bytes of the header.
    pub(crate) const LEN: u16 = 0x40;
    /// Layout of the header, without the multi-function bit.
    pub(crate) const TYPE: u8 = 0x7f;
    /// Bytes of the expansion ROM BAR.
    pub(crate) const ROM_BAR_LEN: u16 = 4;
    /// Built-in self test, 8 bits.
    pub(crate) const BIST: u16 = 0x0f;
}

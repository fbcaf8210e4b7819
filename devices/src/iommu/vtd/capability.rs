//! What the unit says it can do: CAP and ECAP.

use super::spec::registers::{Capability, ExtendedCapability, FAULT_RECORDS, offset};

/// Pages of one page-selective invalidation, as a power of two: 1 GiB.
pub(crate) const MAX_ADDRESS_MASK: u8 = 18;

/// Width of the addresses devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressWidth {
    /// Three levels of tables.
    Bits39,
    /// Four levels; tables of three are understood as well.
    Bits48,
}

impl AddressWidth {
    /// The width in bits.
    pub const fn bits(self) -> u8 {
        match self {
            AddressWidth::Bits39 => 39,
            AddressWidth::Bits48 => 48,
        }
    }

    /// The widest that is not wider than `bits`, if any is.
    pub const fn within(bits: u8) -> Option<Self> {
        match bits {
            48.. => Some(AddressWidth::Bits48),
            39.. => Some(AddressWidth::Bits39),
            _ => None,
        }
    }
}

/// What a unit is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtdConfig {
    /// Width of device addresses.
    pub width: AddressWidth,
    /// CM: the guest invalidates what becomes present too. Passed devices need it: only an invalidation
    /// tells of a change in the tables.
    pub caching_mode: bool,
    /// IR: interrupts can be remapped.
    pub interrupt_remapping: bool,
    /// EIM: APIC ids of 32 bits.
    pub extended_interrupts: bool,
    /// SC: every host domain enforces coherent DMA.
    pub snoop_control: bool,
}

impl VtdConfig {
    /// CAP. No write-buffer flush, no protected regions and no fault log in memory: they gain nothing.
    /// Page-selective invalidation and large pages keep walks short.
    pub(crate) fn capability(&self) -> Capability {
        let guest_widths = match self.width {
            AddressWidth::Bits39 => 0b010,
            AddressWidth::Bits48 => 0b110,
        };
        Capability::new()
            .with_domains(6)
            .with_caching_mode(self.caching_mode)
            .with_guest_widths(guest_widths)
            .with_max_guest_width(self.width.bits() - 1)
            .with_fault_record_offset((offset::FAULT_RECORDS / 16) as u16)
            .with_large_pages(0b11)
            .with_page_selective(true)
            .with_fault_records(FAULT_RECORDS as u8 - 1)
            .with_max_address_mask(MAX_ADDRESS_MASK)
            .with_drain_writes(true)
            .with_drain_reads(true)
    }

    /// ECAP. Walks are coherent, else Linux flushes its cache for every entry it writes.
    pub(crate) fn extended_capability(&self) -> ExtendedCapability {
        ExtendedCapability::new()
            .with_coherent(true)
            .with_queued_invalidation(true)
            .with_interrupt_remapping(self.interrupt_remapping)
            .with_extended_interrupts(self.interrupt_remapping && self.extended_interrupts)
            .with_pass_through(true)
            .with_snoop_control(self.snoop_control)
            .with_iotlb_offset((offset::INVALIDATE_ADDRESS / 16) as u16)
            .with_max_handle_mask(15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: VtdConfig = VtdConfig {
        width: AddressWidth::Bits48,
        caching_mode: true,
        interrupt_remapping: true,
        extended_interrupts: true,
        snoop_control: false,
    };

    #[test]
    fn four_levels_with_everything() {
        assert_eq!(ALL.capability().into_bits(), 0x00d2_078c_222f_0686);
        assert_eq!(ALL.extended_capability().into_bits(), 0x00f0_0f5b);
    }

    #[test]
    fn three_levels_with_snoop_control() {
        let config = VtdConfig {
            width: AddressWidth::Bits39,
            snoop_control: true,
            ..ALL
        };
        assert_eq!(config.capability().into_bits(), 0x00d2_078c_2226_0286);
        assert_eq!(config.extended_capability().into_bits(), 0x00f0_0fdb);
    }

    #[test]
    fn extended_ids_need_remapping() {
        let config = VtdConfig {
            interrupt_remapping: false,
            ..ALL
        };
        assert!(!config.extended_capability().extended_interrupts());
    }

    #[test]
    fn a_width_is_at_most_the_hosts() {
        assert_eq!(AddressWidth::within(57), Some(AddressWidth::Bits48));
        assert_eq!(AddressWidth::within(47), Some(AddressWidth::Bits39));
        assert_eq!(AddressWidth::within(38), None);
    }
}

//! DMAR: the VT-d unit and what is behind it (VT-d §8).

use acpi_tables::sdt::Sdt;
use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{Immutable, IntoBytes};

use super::header::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use super::madt::IOAPIC_ID;
use crate::layout;

/// The bus from which the I/O APIC's interrupt requests seem to come. No guest gives a device on it away; QEMU's q35
/// has the same.
pub const IOAPIC_BUS: u8 = 0xff;

/// The properties of the unit that the table tells.
#[derive(Clone, Copy, Debug)]
pub struct Dmar {
    /// Bits of an address in a DMA request. The table has one less (Host Address Width, §8.1).
    pub width_bits: u8,
    /// Whether the unit remaps interrupts (flag INTR_REMAP, §8.1).
    pub interrupt_remapping: bool,
}

impl Dmar {
    /// The table. One unit for all of PCI; the I/O APIC is named as well, else Linux refuses to remap
    /// (`parse_ioapics_under_ir`, drivers/iommu/intel/irq_remapping.c).
    pub fn table(&self) -> Vec<u8> {
        let body = Body {
            width_less_one: self.width_bits - 1,
            flags: u8::from(self.interrupt_remapping),
            reserved: [0; 10],
            unit: Unit {
                kind: U16::new(0),
                len_bytes: U16::new((size_of::<Unit>() + size_of::<Scope>()) as u16),
                // INCLUDE_PCI_ALL: no list of devices, which hot plug would make wrong.
                flags: 1,
                size: 0,
                segment: U16::ZERO,
                registers: U64::new(layout::VTD.start.0),
            },
            ioapic: Scope {
                kind: 3,
                len_bytes: size_of::<Scope>() as u8,
                reserved: U16::ZERO,
                id: IOAPIC_ID,
                bus: IOAPIC_BUS,
                path: [0, 0],
            },
        };
        let mut table = Sdt::new(*b"DMAR", 36, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        table.append_slice(body.as_bytes());
        table.as_slice().to_vec()
    }
}

/// The table behind the common header (§8.1).
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Body {
    width_less_one: u8,
    flags: u8,
    reserved: [u8; 10],
    unit: Unit,
    ioapic: Scope,
}

/// DMA remapping hardware unit definition (§8.3); flag 0: all of PCI.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Unit {
    kind: U16,
    len_bytes: U16,
    flags: u8,
    size: u8,
    segment: U16,
    registers: U64,
}

/// Device scope with a path of one step (§8.3.1).
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Scope {
    kind: u8,
    len_bytes: u8,
    reserved: U16,
    id: u8,
    bus: u8,
    path: [u8; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_for_all_of_pci_and_the_io_apic() {
        let dmar = Dmar {
            width_bits: 48,
            interrupt_remapping: true,
        };
        let table = dmar.table();
        assert_eq!(table.len(), 72);
        assert_eq!(table[4..8], 72u32.to_le_bytes());
        assert_eq!(table[36..38], [47, 1]);
        assert_eq!(
            table[48..64],
            [0, 0, 24, 0, 1, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0]
        );
        assert_eq!(table[64..], [3, 8, 0, 0, 0, 0xff, 0, 0]);
        assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}

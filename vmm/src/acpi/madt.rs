//! MADT: the CPUs and the I/O APIC (ACPI 6.5 §5.2.12).
//!
//! There are no interrupt source overrides: an ISA interrupt arrives at the pin of its own number.

use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::{Aml, AmlSink};
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::config::AcpiConfig;
use super::header::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// Value of the I/O APIC's identification register after reset.
pub(super) const IOAPIC_ID: u8 = 0;
/// The first id that a local APIC entry cannot hold: 255 is the broadcast address.
const FIRST_X2APIC_ID: u32 = 255;

/// A CPU below 255 gets a local APIC entry and one from there on an x2APIC entry, never both (§5.2.12.12),
/// or it would be counted twice.
pub(super) fn table(config: &AcpiConfig) -> MADT {
    let address = LocalInterruptController::Address(layout::LOCAL_APIC.start.0 as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    for (uid, &apic_id) in (0..).zip(&config.apic_ids) {
        match u8::try_from(apic_id) {
            Ok(id) if apic_id < FIRST_X2APIC_ID => {
                // Ids are unique, so there are at most 255 of these and the number fits.
                madt.add_structure(ProcessorLocalApic::new(uid as u8, id, EnabledStatus::Enabled));
            }
            _ => madt.add_structure(LocalX2Apic::new(uid, apic_id)),
        }
    }
    let ioapic = IoApic::new(IOAPIC_ID, layout::IOAPIC.start.0 as u32, config.first_gsi.into());
    madt.add_structure(ioapic);
    madt
}

/// Processor local x2APIC structure (§5.2.12.12), which acpi_tables does not have.
#[repr(C, packed)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct LocalX2Apic {
    kind: u8,
    len_bytes: u8,
    reserved: U16,
    apic_id: U32,
    flags: U32,
    processor_uid: U32,
}

impl LocalX2Apic {
    fn new(uid: u32, apic_id: u32) -> Self {
        Self {
            kind: 9,
            len_bytes: size_of::<Self>() as u8,
            reserved: U16::ZERO,
            apic_id: apic_id.into(),
            flags: (EnabledStatus::Enabled as u32).into(),
            processor_uid: uid.into(),
        }
    }
}

impl Aml for LocalX2Apic {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and lengths of the structures behind the 44-byte header, with the id of each.
    fn structures(apic_ids: &[u32]) -> Vec<(u8, u8, u32)> {
        let config = AcpiConfig {
            apic_ids: apic_ids.to_vec(),
            ..AcpiConfig::example()
        };
        let mut bytes = Vec::new();
        table(&config).to_aml_bytes(&mut bytes);
        let mut rest = &bytes[44..];
        let mut found = Vec::new();
        while let [kind, len, ..] = *rest {
            let id = if kind == 9 {
                rest[4..8].try_into().map_or(0, u32::from_le_bytes)
            } else {
                u32::from(rest[3])
            };
            found.push((kind, len, id));
            rest = &rest[usize::from(len)..];
        }
        found
    }

    #[test]
    fn each_cpu_is_listed_once() {
        assert_eq!(
            structures(&[0, 1, 2]),
            [(0, 8, 0), (0, 8, 1), (0, 8, 2), (1, 12, 0)]
        );
    }

    #[test]
    fn the_first_pin_has_its_number_in_the_system() {
        let config = AcpiConfig {
            apic_ids: Vec::new(),
            first_gsi: 4,
            ..AcpiConfig::example()
        };
        let mut bytes = Vec::new();
        table(&config).to_aml_bytes(&mut bytes);
        assert_eq!(bytes[44..], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 4, 0, 0, 0]);
    }

    #[test]
    fn ids_from_255_on_are_x2apic_entries() {
        assert_eq!(
            structures(&[254, 255, 1000]),
            [(0, 8, 254), (9, 16, 255), (9, 16, 1000), (1, 12, 0)]
        );
    }

    #[test]
    fn sixty_four_cpus_fit() {
        assert_eq!(structures(&(0..64).collect::<Vec<_>>()).len(), 65);
    }
}

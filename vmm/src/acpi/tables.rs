//! All tables together, with the pointers between them.

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use vm_memory::GuestAddress;

use super::config::AcpiConfig;
use super::header::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use super::{dsdt, fadt, madt, mcfg};
use crate::layout::Range;

/// Tables start at multiples of this, which no specification asks for and every reader likes.
const ALIGNMENT: usize = 16;

/// Tables, ready to be copied into guest RAM.
#[derive(Clone, Debug)]
pub struct AcpiTables {
    /// The guest address at which the bytes belong.
    pub address: GuestAddress,
    /// The tables behind one another, with their checksums.
    pub bytes: Vec<u8>,
    /// The address of the root pointer (RSDP), which a kernel is told when it starts.
    pub rsdp: GuestAddress,
}

/// More tables than there is room for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ACPI tables take {needed} bytes and their place has {room}")]
pub struct TooLarge {
    needed: usize,
    room: u64,
}

/// Builds the tables for `place`, which must be below 4 GiB; the RSDP comes first.
///
/// # Errors
/// When they do not fit.
pub fn build(config: &AcpiConfig, place: Range) -> Result<AcpiTables, TooLarge> {
    // The RSDP points forward, so it is written last into the room that is left for it.
    let mut image = Image {
        start: place.start,
        bytes: vec![0; Rsdp::len()],
    };
    let dsdt = image.add(&to_bytes(&dsdt::table(config)));
    // No RSDT, for an operating system must use the XSDT where there is one (ACPI 6.5 §5.2.8).
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(image.add(&to_bytes(&fadt::table(dsdt, config))).0);
    xsdt.add_entry(image.add(&to_bytes(&madt::table(config))).0);
    xsdt.add_entry(image.add(&to_bytes(&mcfg::table(config.pci.last_bus))).0);
    for table in &config.extra {
        xsdt.add_entry(image.add(table).0);
    }
    let xsdt = image.add(&to_bytes(&xsdt));
    image.bytes[..Rsdp::len()].copy_from_slice(&to_bytes(&Rsdp::new(OEM_ID, xsdt.0)));
    if image.bytes.len() as u64 > place.len {
        return Err(TooLarge {
            needed: image.bytes.len(),
            room: place.len,
        });
    }
    Ok(AcpiTables {
        address: place.start,
        bytes: image.bytes,
        rsdp: place.start,
    })
}

struct Image {
    start: GuestAddress,
    bytes: Vec<u8>,
}

impl Image {
    /// Appends a table and tells its address.
    fn add(&mut self, table: &[u8]) -> GuestAddress {
        let offset = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(offset, 0);
        self.bytes.extend(table);
        GuestAddress(self.start.0 + offset as u64)
    }
}

fn to_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;

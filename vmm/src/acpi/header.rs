//! The maker of the tables, as every table's header names it (ACPI 6.5 §5.2.6).

/// The maker of the tables, and of this kind of machine.
pub(super) const OEM_ID: [u8; 6] = *b"STRAIT";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"STRAITVM";
pub(super) const OEM_REVISION: u32 = 1;

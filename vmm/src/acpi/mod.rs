//! The ACPI tables: a hardware-reduced machine (ACPI 6.5 §3.11.1) with a PCI Express host bridge.
//!
//! Hardware-reduced means no SCI, no PM timer, no fixed power button and no legacy interrupt controllers, so
//! Linux probes none of them. One file builds one table; [`build`] puts them behind one another.
//!
//! This module knows neither KVM nor the machine: it returns bytes and says where they belong.

mod dmar;
mod dsdt;
mod fadt;
mod madt;
mod mcfg;
mod pci_host;
mod tables;

pub use dmar::{Dmar, IOAPIC_BUS};
pub use pci_host::PciHost;
pub use tables::{AcpiConfig, AcpiTables, TooLarge, build};

/// Who made the tables, in each header.
const OEM_ID: [u8; 6] = *b"STRAIT";
const OEM_TABLE_ID: [u8; 8] = *b"STRAITVM";
const OEM_REVISION: u32 = 1;

//! The ACPI tables: a hardware-reduced machine (ACPI 6.5 §3.11.1) with a PCI Express host bridge.
//!
//! Hardware-reduced means no SCI, no PM timer, no fixed power button and no legacy interrupt controllers, so
//! Linux probes none of them. One file builds one table; [`build`] puts them behind one another.
//!
//! This module knows neither KVM nor the machine: it returns bytes and says where they belong.

mod config;
mod dmar;
mod dsdt;
mod fadt;
mod header;
mod madt;
mod mcfg;
mod pci_host;
mod power_button;
mod tables;

pub use config::AcpiConfig;
pub use dmar::{Dmar, IOAPIC_BUS};
pub use pci_host::PciHost;
pub use tables::{AcpiTables, TooLarge, build};

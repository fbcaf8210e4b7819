//! The machine as the guest sees it: PCI Express, interrupt controllers, legacy devices, address spaces.
//!
//! This crate knows no KVM, no VFIO, no file and no thread. It builds and tests anywhere. What it needs
//! from the outside it asks for through small traits, the seams: [`irq::MsiRouter`] delivers interrupts,
//! [`region::HostBacking`] is memory that can be mapped straight into the guest, [`dma::Domain`] is what a
//! device may reach by DMA, [`address_space::MapListener`] hears about every change of the memory map.
//!
//! Three types to know: a [`Device`] answers trapped accesses and returns an [`Effect`]; a
//! [`region::Region`] is a device with its directly mapped pieces; the
//! [`address_space::AddressSpace`] knows where each region sits, and nobody else does.

#![forbid(unsafe_code)]

pub mod acpi_pm;
pub mod address_space;
mod backing;
mod chain;
pub mod dma;
pub mod iommu;
pub mod irq;
pub mod legacy;
mod lock;
pub mod pci;
mod place;
pub mod range_map;
pub mod region;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod warning;

pub use chain::Chain;
pub use lock::lock;
pub use place::Place;
pub use region::{Device, Effect, Remap, Unfinished};
pub use vm_memory::GuestAddress;

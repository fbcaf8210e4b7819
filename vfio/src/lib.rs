//! Physical PCI functions for a guest: one of them becomes a
//! [`pci::Function`](strait_devices::pci::Function), what it may reach by DMA a
//! [`dma::Domain`](strait_devices::dma::Domain).
//!
//! This crate knows no KVM and no guest memory. It opens devices and maps BARs; where a BAR is in the guest
//! and how an interrupt gets there is decided above.
//!
//! Three types to know: a [`Device`] is an open function, a [`Container`] is the I/O address space it is
//! attached to, and [`pci::Passthrough`] is what the guest sees. [`host`] says beforehand whether a function
//! can be had, and what to do if not.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use strait_devices::irq::{MsiRouter, SharedLine};
//! # fn example(router: Arc<dyn MsiRouter>, wires: [Arc<SharedLine>; 4]) -> Result<(), Box<dyn std::error::Error>> {
//! use strait_devices::dma::AlwaysMapped;
//! use strait_vfio::pci::{Appearance, Passthrough};
//! use strait_vfio::{Container, Device, host};
//!
//! let bdf: host::HostBdf = "0000:01:00.0".parse()?;
//! host::check(host::Host::new(&host::Root::real(), &host::RunningKernel), &[bdf], 512 << 20)?;
//! let container = Container::open(None)?;
//! let device = Device::open(&container, bdf)?;
//! let gate = Arc::new(AlwaysMapped);
//! let function = Passthrough::new(device, router, &wires, Appearance::default(), gate)?;
//! # Ok(())
//! # }
//! ```

mod aer;
mod device;
pub mod domain;
mod hardware;
pub mod host;
mod host_events;
mod hush;
mod interrupt;
mod intx;
mod mapping;
#[cfg(test)]
mod mock;
pub mod pci;
mod reset;
mod reset_state;
mod sys;

pub use device::{Device, DeviceError};
pub use domain::{Container, GroupListener, Identity};
pub use hardware::{Hardware, HardwareRegion, InterruptInfo, InterruptKind, RegionInfo};
pub use interrupt::{BindVectorsError, VectorSet};
pub use intx::Intx;
pub use mapping::{Mapping, PAGE_SIZE};

//! An emulated Intel VT-d unit with caching mode and interrupt remapping, in legacy mode.
//!
//! [`Vtd`] is the register page. What a passed device may reach by DMA is shadowed from the guest's tables
//! into the device's [`Domain`] on the host, whenever the guest invalidates
//! (`invalidation`, `shadow`); what it may interrupt is translated into routes ([`RemappingRouter`]).
//!
//! One lock guards all of it. It may be taken while a function's or the address space's lock is held, and
//! the unit never calls back into either. The work is done on the thread of the vCPU that asks for it, a turn
//! at a time (`turn`, `work`): between two of them the lock is free and the vCPU can be stopped, and what it
//! leaves is done with the next write.
//!
//! Faults of a passed device's DMA are the host's to see, and are not recorded here: only those of emulated
//! devices and of interrupts are.

mod capability;
mod device;
mod dma;
mod faults;
mod interrupts;
mod memory;
mod queue;
mod registers;
mod request;
mod router;
mod spec;
mod turn;
mod unit;
mod work;

pub use capability::{AddressWidth, VtdConfig};
pub use device::{Vtd, VtdStats};
pub use dma::{DeviceStats, Latency, ShadowStats, Translation};
pub use interrupts::Source;
pub use memory::TableMemory;
pub use queue::InvalidationStats;
pub use router::RemappingRouter;

#[cfg(test)]
mod tests;

//! What passed-through devices reach by DMA.
//!
//! [`Container`] is an I/O address space of the host, [`Identity`] fills it with the guest's memory at the
//! guest's own addresses.

mod container;
mod identity;

pub use container::{Container, ContainerError, IommuFacts};
pub use identity::Identity;

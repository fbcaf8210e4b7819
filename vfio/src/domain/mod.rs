//! What passed-through devices reach by DMA.
//!
//! [`Container`] is an I/O address space of the host, [`Identity`] fills it with the guest's memory at the
//! guest's own addresses.

mod container;
mod group;
mod identity;

pub use container::{Container, ContainerError, GroupListener, IommuFacts};
pub(crate) use group::Group;
pub use group::GroupError;
pub use identity::{GoOn, Identity};

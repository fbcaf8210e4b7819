//! What passed-through devices reach by DMA.
//!
//! [`Container`] is an I/O address space of the host, [`Identity`] fills it with the guest's memory at the
//! guest's own addresses.

mod container;
mod file;
mod group;
mod identity;

pub use container::{Container, ContainerError, IommuFacts};
pub use file::GroupListener;
pub(crate) use group::Group;
pub use group::GroupError;
pub use identity::{GoOn, Identity, PIECE_BYTES};

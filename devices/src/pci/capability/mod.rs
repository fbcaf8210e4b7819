//! Capabilities of a function: structures in configuration space that a guest finds by walking a list.
//!
//! The message signalled interrupts are here as a guest programs them.
//! [`Msi`] and [`Msix`] are plain models of the registers. Both turn what the guest wrote into one state
//! per vector, "sends this message" or "silent", and drive [`Vectors`] with the changes of that state only:
//! a write that changes nothing effective costs nothing outside the model.

pub mod acs;
pub mod express;
pub mod msi;
pub mod msix;
pub mod one_message;
pub(crate) mod slot;
mod vectors;

pub use msi::Msi;
pub use msix::Msix;
pub use vectors::{BindError, VectorBinder, Vectors};

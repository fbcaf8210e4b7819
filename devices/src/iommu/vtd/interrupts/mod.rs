//! Interrupt remapping (§5.1): what a source sends becomes what the guest's table says.
//!
//! `remap` translates one message; [`InterruptRemapper`] keeps the routes that were made through it and translates
//! them again when the guest invalidates their entries, so that the kernel delivers the interrupts without us.

mod remap;
mod routes;

pub use remap::Source;
pub(super) use routes::{InterruptRemapper, Way};

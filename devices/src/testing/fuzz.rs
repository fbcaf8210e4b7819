//! Guests that do what bytes tell them to: the bodies of the fuzz targets in `devices/fuzz`, where the unit
//! tests can replay them.
//!
//! Each function is one run. It builds a machine of its own, reads the bytes as a program, and panics where
//! the unit does something that a slow reference, written from the specification, does not. No input is
//! wrong: bytes that are missing read as zero.

mod chipset;
mod endpoint;
mod input;
mod machine;
mod meter;
mod queue;
mod reference;
mod registers;
mod remapping;
mod seeds;
mod tables;

pub use chipset::chipset;
pub use queue::queue;
pub use registers::registers;
pub use remapping::remapping;
pub use seeds::replay;
pub use tables::tables;

#[cfg(test)]
mod tests;

//! A passed-through function as the guest sees it.
//!
//! [`Passthrough`] is the function. Its configuration space (`configuration`) is a copy of the hardware's with
//! a table of patches (`overlay`), and areas that answer for themselves (`area`): the header, and capabilities
//! (`capability`), which bounded walks find (`discover`). Its BARs are mapped where they can be and trapped
//! where they must be (`bars`); its interrupt vectors are the models of `strait-devices` tied to the
//! hardware's, and its wire is on while it needs one (`wire`).

mod appearance;
mod area;
mod bars;
mod capability;
mod configuration;
mod decoder;
mod discover;
mod extended;
mod field;
mod header;
mod msix_structures;
mod overlay;
mod passthrough;
mod reset;
mod rom;
mod spec;
#[cfg(test)]
mod tests;
mod wire;

pub use appearance::{Appearance, RomSource};
pub use decoder::Decoder;
pub use passthrough::{Passthrough, PassthroughError};

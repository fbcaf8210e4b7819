//! A passed-through function as the guest sees it.
//!
//! [`Passthrough`] is the function. Its configuration space is a copy of the hardware's with parts taken
//! over (`config`), found by bounded walks (`discover`); its BARs are mapped where they can be and
//! trapped where they must be (`bars`); its interrupt vectors are the models of `strait-devices` tied to
//! the hardware's, and its wire is on while it needs one (`wire`).

mod appearance;
mod bars;
mod config;
mod discover;
mod field;
mod layout;
mod msix;
mod passthrough;
mod reset;
mod rom;
mod spec;
#[cfg(test)]
mod tests;
mod wire;

pub use appearance::{Appearance, RomSource};
pub use passthrough::{Passthrough, PassthroughError};

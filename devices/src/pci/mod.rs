//! PCI Express as the guest sees it: configuration space, bridges, and what stands in place of firmware.
//!
//! A [`Function`] is one device function; [`RootComplex`] routes configuration cycles to it by bus number;
//! [`firmware`] assigns buses and BARs before the guest starts.

mod address;
pub mod bar;
pub mod cam;
pub mod capability;
pub mod config_space;
pub mod ecam;
pub mod firmware;
mod function;
mod host_bridge;
mod image;
pub mod rom_bar;
mod root_complex;
mod root_port;
pub mod spec;

pub use address::{Bdf, DevFn};
pub use function::Function;
pub use host_bridge::HostBridge;
pub use image::Image;
pub use root_complex::RootComplex;
pub use root_port::{RootPort, Upstream};

#[cfg(test)]
mod tests;

//! The host's side of passing a device through: its name, its group, its driver, and whether all is ready.
//!
//! Everything is read from sysfs and procfs below a [`Root`], so that tests can build a host of their own.
//! Nothing here changes the host.

mod check;
mod group;
mod name;
mod process;
mod sysfs;

pub use check::{CheckError, check};
pub use group::Group;
pub use name::{HostBdf, ParseBdfError};
pub use sysfs::{PciDevice, Root};

#[cfg(test)]
mod tests;

//! The host's side of passing a device through: its name, its group, its driver, and whether all is ready.
//!
//! Everything is read from sysfs and procfs below a [`Root`], so that tests can build a host of their own.
//! Nothing here changes the host.

mod check;
mod distribution;
pub mod doctor;
mod group;
mod ids;
mod inventory;
mod iommu;
mod kernel;
mod lookup;
mod modules;
mod name;
mod process;
mod sysfs;
mod usage;

pub use check::{CheckError, check};
pub use group::Group;
pub use ids::PciIds;
pub use inventory::{Function, Inventory, Sriov};
pub use kernel::{Kernel, RunningKernel};
pub use lookup::{LookupError, find};
pub use modules::{ModuleState, Modules, module_state};
pub use name::{HostBdf, ParseBdfError};
pub use sysfs::{PciDevice, Root};
pub use usage::{Usage, Use};

#[cfg(test)]
mod tests;

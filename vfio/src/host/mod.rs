//! The host's side of passing a device through: its name, its group, its driver, and whether all is ready.
//!
//! Everything is read from sysfs and procfs below a [`Root`], so that tests can build a host of their own.
//! Only [`bind()`], [`restore()`] and what they use change the host, and only through a [`Kernel`], so that tests can
//! play the kernel too.

mod access;
mod bind;
mod binding;
mod boot;
mod check;
mod distribution;
pub mod doctor;
mod drivers;
mod entry_limit;
mod error;
mod group;
mod hardware;
mod hint;
mod ids;
mod inventory;
mod iommu;
mod journal;
mod kernel;
mod lookup;
mod modules;
mod name;
mod netlink;
mod plan;
mod process;
mod refusal;
mod remedy;
mod resources;
mod restore;
mod saved;
mod sriov;
mod sysfs;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod usage;
mod vf_link;
mod virtual_links;

pub use access::Host;
pub use bind::bind;
pub use binding::BindingError;
pub use check::check;
pub use distribution::initramfs_commands;
pub(crate) use drivers::is_vfio_driver;
pub use entry_limit::{EntryLimitError, entries_needed};
pub use error::BindError;
pub use group::Group;
pub use hardware::{Virtualization, memory_bytes};
pub use ids::PciIds;
pub(crate) use inventory::reset_methods;
pub use inventory::{Devices, Function, Inventory, Sriov};
pub use journal::{JournalError, Owner, UndoEntry, taken};
pub use kernel::{Kernel, RunningKernel};
pub use lookup::{LookupError, find};
pub use modules::{ModuleState, Modules, module_state};
pub use name::{HostBdf, ParseBdfError};
pub use plan::{Move, Plan, Request, plan};
pub use process::Process;
pub use refusal::CheckError;
pub use remedy::ways_out;
pub use resources::Decoded;
pub use restore::{RestoreError, Restored, restorable, restore, restore_orphans};
pub use sriov::{SriovError, VirtualFunction, set_links, set_virtual_functions};
pub use sysfs::{PciDevice, Root};
pub use usage::{Names, Usage, Use, Whole};
pub use vf_link::VfLink;

#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod tests;

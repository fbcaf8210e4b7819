//! The lab: a QEMU machine with an IOMMU, KVM and PCI devices in software, and the Linux in it.

mod card;
mod device;
mod host;
mod logs;
mod machine;
mod monitor;
mod pace;
mod share;
mod state;

pub(crate) use device::{Assigned, EDU, NIC, NVME};
pub(crate) use host::LabHost;
pub(crate) use logs::{Logs, workspace};
pub(crate) use machine::{Console, Host, Machine};
pub(crate) use monitor::Monitor;
pub(crate) use pace::Pace;
pub(crate) use share::{Share, build_strait};
pub(crate) use state::{HostState, pinned_pages};

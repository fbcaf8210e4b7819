//! The lab: a QEMU machine with an IOMMU, KVM and PCI devices in software, and the Linux in it.

mod assigned;
mod card;
pub(crate) mod devices;
mod host;
mod leftovers;
mod logs;
mod machine;
mod monitor;
mod outside;
mod pace;
mod share;
pub(crate) mod zoo;

pub(crate) use assigned::Assigned;
pub(crate) use host::LabHost;
pub(crate) use leftovers::{Leftovers, pinned_pages};
pub(crate) use logs::{Logs, workspace};
pub(crate) use machine::{Console, Kind, Lane, Machine};
pub(crate) use monitor::Monitor;
pub(crate) use outside::Outside;
pub(crate) use pace::Pace;
pub(crate) use share::{Share, build_strait};

//! The lab: a QEMU machine with an IOMMU, KVM and PCI devices in software, and the Linux in it.

mod assigned;
mod bochs;
mod card;
pub(crate) mod devices;
pub(crate) mod hand_over;
mod host;
pub(crate) mod housing;
mod kind;
mod leftovers;
mod logs;
mod machine;
mod monitor;
mod outside;
mod pace;
mod qemu;
mod share;
pub(crate) mod zoo;

pub(crate) use assigned::Assigned;
pub(crate) use host::LabHost;
pub(crate) use kind::{Kind, Lane};
pub(crate) use leftovers::{Leftovers, pinned_pages};
pub(crate) use logs::{Logs, workspace};
pub(crate) use machine::Machine;
pub(crate) use monitor::Monitor;
pub(crate) use outside::Outside;
pub(crate) use pace::Pace;
pub(crate) use qemu::Console;
pub(crate) use share::{Share, build_program, build_strait};

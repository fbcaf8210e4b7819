//! Strait: a small virtual machine monitor whose purpose is to pass PCI devices to a guest.
//!
//! This package owns the process: KVM, guest memory, boot, threads and the command line. What the guest
//! sees is in `strait-devices`, the physical devices are in `strait-vfio`. Start reading at
//! [`machine::run`].

pub mod acpi;
pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod event_loop;
pub mod events;
pub mod gdb;
pub mod guests;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod messages;
pub mod open_files;
pub mod output;
pub mod placement;
pub mod private_socket;
pub mod progress;
pub mod signals;
pub mod status;
pub mod terminal;
pub mod user;
pub mod vcpu;

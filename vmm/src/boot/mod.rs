//! Starting a kernel without firmware: what to put where in guest RAM, and which register values the first
//! vCPU starts with.
//!
//! [`GuestKernel::open`] checks everything there is to check against files and the size of memory, before
//! anything on the host changes. [`GuestKernel::load`] then fills RAM, again and again if the guest resets. Two
//! ways in: a bzImage starts in 64-bit mode (Linux Documentation/arch/x86/boot.rst, "64-bit boot protocol"),
//! an ELF file with a PVH note in 32-bit mode (Xen docs/misc/pvh.pandoc).
//!
//! This module knows neither KVM's calls nor the machine: it returns bytes and register values.

mod bzimage;
mod cmdline;
mod e820;
mod elf;
mod entry;
mod error;
mod image;
mod initramfs;
mod kernel;
mod pvh;
mod reset_vector;
#[cfg(test)]
mod testing;

pub use entry::EntryState;
pub use error::BootError;
pub use kernel::{GuestKernel, Source};

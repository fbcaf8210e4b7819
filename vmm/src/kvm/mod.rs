//! KVM: the virtual machine, its memory slots, its interrupt routes and its vCPUs.
//!
//! All ioctls on /dev/kvm are made here. In-kernel local APICs with a split irqchip: the I/O APIC is ours,
//! because interrupt remapping cannot work with the kernel's.

#![expect(
    unsafe_code,
    reason = "memory slots, KVM's numbers, and the kvm_run page: the data of an exit, and the flag that ends a run"
)]

pub mod clock;
pub mod cpuid;
pub mod debug;
pub mod irq;
mod reset_state;
mod ring;
mod shortcut;
pub mod slots;
mod statistics;
mod stop;
mod system;
#[cfg(test)]
pub(crate) mod testing;
pub mod vcpu;
mod vfio;
mod vm;

pub use statistics::{Number, Statistics};
pub use stop::StopFlag;
pub use system::{System, SystemError};
pub use vfio::VfioGroups;
pub use vm::{Vm, VmError};

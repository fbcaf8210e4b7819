//! Interrupts as messages: what devices ask of the interrupt hardware outside this crate.

pub mod ioapic;
mod line;
mod shared_line;

use std::error::Error;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use line::IrqLine;
pub use shared_line::{EndOfInterrupt, LineInput, SharedLine};

/// An MSI as a device writes it to memory (PCI Local Bus 3.0 §6.8.1, Intel SDM vol. 3 §11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// Target of the write, 0xFEE0_0000 to 0xFEEF_FFFF for interrupts.
    pub address: u64,
    /// The value written: vector, delivery and trigger mode.
    pub data: u32,
}

/// Why a route could not be had or set.
pub type RouteError = Box<dyn Error + Send + Sync>;

/// Where messages go: the local APICs, perhaps with interrupt remapping in front.
pub trait MsiRouter: Send + Sync {
    /// Delivers one message now, for emulated devices. A message no CPU takes is dropped, as on a bus.
    fn send(&self, message: MsiMessage);

    /// Tells which message I/O APIC pin `pin` would send, `None` if masked. The local APICs report the end
    /// of a level interrupt only for vectors they know to be a pin's (KVM's split irqchip, §4.24 of
    /// Documentation/virt/kvm/api.rst).
    fn set_pin(&self, pin: u8, message: Option<MsiMessage>);

    /// A new route with an event of its own, at first masked.
    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError>;

    /// What `settings` sets on routes and pins is one change of the interrupt hardware, and in effect when
    /// this returns. A router whose changes cost little need not do anything for that.
    fn together(&self, settings: &mut dyn FnMut()) {
        settings();
    }
}

/// The way of one interrupt vector from an event to a CPU. Dropping it frees the way.
pub trait MsiRoute: Send + Sync {
    /// Sends each event as `message` from now on, or holds events back (`None`). The whole message or
    /// nothing: a CPU never sees half of a change. Events that arrive while masked are delivered once when
    /// the route is set again.
    fn set(&self, message: Option<MsiMessage>) -> Result<(), RouteError>;

    /// The eventfd whose signal is the interrupt, for the kernel's device driver to signal directly.
    fn event(&self) -> BorrowedFd<'_>;

    /// True when an event waits because the route is masked (the pending bit, PCI 3.0 §6.8.2.10).
    fn pending(&self) -> bool;

    /// Drops the event that waits because the route is masked; false if none does.
    fn discard(&self) -> bool;
}

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
///
/// Changes have two steps. `set` of a pin or a route only marks it; `commit` brings it into effect, and with it
/// whatever else is marked, by whichever thread. So who changes many sets all of them first: the first commit
/// is then the one change of the interrupt hardware, and those after it find nothing left to do there.
pub trait MsiRouter: Send + Sync {
    /// Delivers one message now, for emulated devices. A message no CPU takes is dropped, as on a bus.
    fn send(&self, message: MsiMessage);

    /// Marks I/O APIC pin `pin` as one that sends `message`, `None` if it is masked. The local APICs report the
    /// end of a level interrupt only for vectors they know to be a pin's (KVM's split irqchip, §4.24 of
    /// Documentation/virt/kvm/api.rst).
    fn set_pin(&self, pin: u8, message: Option<MsiMessage>);

    /// The local APICs know every pin as it was last set when this returns.
    ///
    /// # Errors
    /// When the interrupt hardware refuses; it is asked again with the next commit.
    fn commit(&self) -> Result<(), RouteError>;

    /// A new route with an event of its own, at first masked.
    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError>;
}

/// The way of one interrupt vector from an event to a CPU. Dropping it frees the way.
pub trait MsiRoute: Send + Sync {
    /// Marks the route as one that sends each event as `message`, or holds events back (`None`).
    fn set(&self, message: Option<MsiMessage>);

    /// Events go the way that was last set when this returns. The whole message or nothing: a CPU never sees
    /// half of a change. An event that arrived while the route was masked is delivered once, now.
    ///
    /// # Errors
    /// When the interrupt hardware refuses. What the route does then is not known until it is set to `None`.
    fn commit(&self) -> Result<(), RouteError>;

    /// The eventfd whose signal is the interrupt, for the kernel's device driver to signal directly.
    fn event(&self) -> BorrowedFd<'_>;

    /// True when an event waits because the route is masked (the pending bit, PCI 3.0 §6.8.2.10).
    fn pending(&self) -> bool;

    /// Drops the event that waits because the route is masked; false if none does.
    fn discard(&self) -> bool;
}

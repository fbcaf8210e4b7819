//! The few devices of a PC that a modern kernel still expects at fixed ports: the serial console, the
//! clock, the ways to reset, and the port that reports a panic; and a timer for kernels that know no other.
//!
//! Everything here answers single bytes, as the ISA parts did. Ports that nobody claims read as ones, which
//! is what a kernel takes for "no such device", so the parts that are missing (PIC, keyboard, DMA controller) need no
//! code: the ACPI tables say the machine is hardware-reduced.

mod channel;
mod counter;
mod pit;
mod pvpanic;
mod reset;
mod rtc;
mod serial;

pub use pit::{Pit, SystemControl};
pub use pvpanic::Pvpanic;
pub use reset::{KeyboardController, ResetControl};
pub use rtc::{Clock, Rtc};
pub use serial::{OnRoom, Serial};

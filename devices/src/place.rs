//! Where something stands in what a CPU can address.

use std::fmt;

use vm_memory::GuestAddress;

/// An address in one of the two spaces a CPU can access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address in guest physical memory.
    Memory(GuestAddress),
    /// The 64 KiB of I/O ports.
    Port(u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Memory(address) => write!(f, "{:#x}", address.0),
            Place::Port(port) => write!(f, "port {port:#x}"),
        }
    }
}

//! Names of functions on a bus.

use std::fmt;

/// Device and function number on some bus, as in a routing id's low byte (PCIe §2.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevFn(u8);

impl DevFn {
    /// Device 0 to 31, function 0 to 7; higher bits are cut off.
    pub const fn new(device: u8, function: u8) -> Self {
        Self((device & 0x1f) << 3 | function & 7)
    }

    /// From the byte of a routing id.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte of a routing id.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// Function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// Bus, device and function of a guest: where a configuration cycle goes. The bus is the number that the
/// guest (or the firmware) wrote into the bridges, not a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Number of the bus, as software gave it.
    pub bus: u8,
    /// Device and function on that bus.
    pub devfn: DevFn,
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus,
            self.devfn.device(),
            self.devfn.function()
        )
    }
}

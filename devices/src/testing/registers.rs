//! Registers of a device as a driver reads and writes them: one whole register at a time.

use crate::region::{Device, Effect};

/// Accesses by the width of a register; what an access makes happen outside the device is left out, and all its
/// parts are done.
pub trait Registers: Device {
    /// Reads 32 bits at `at`, in bytes from the region's start.
    fn read32(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    /// Reads 64 bits.
    fn read64(&self, at: u64) -> u64 {
        let mut data = [0; 8];
        self.read(at, &mut data);
        u64::from_le_bytes(data)
    }

    /// Writes 32 bits.
    fn write32(&self, at: u64, value: u32) {
        finish(self.write(at, &value.to_le_bytes()));
    }

    /// Writes 64 bits.
    fn write64(&self, at: u64, value: u64) {
        finish(self.write(at, &value.to_le_bytes()));
    }
}

/// Goes on with a write until nothing of it is left.
pub fn finish(mut effect: Effect) {
    while let Effect::More(_, rest) = effect {
        effect = rest.go_on();
    }
}

impl<D: Device + ?Sized> Registers for D {}

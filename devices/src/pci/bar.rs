//! Base address registers of a type 0 header (PCIe §7.5.1.2.1): the registers a guest reads and writes, and
//! where they put the regions behind them.
//!
//! [`Bars`] is plain state. A sizing probe, a half-written 64-bit address and an address no region can have
//! are ordinary values of the registers: they yield a place or none, and only a changed place is a
//! [`Remap`].

use std::fmt;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::spec::{bar, command};
use crate::place::Place;
use crate::region::Region;
use crate::region::Remap;

/// Base address registers of a type 0 header.
pub const BAR_COUNT: usize = 6;

/// Bytes the registers take in configuration space.
pub const BAR_REGISTERS_LEN: u16 = 24;

/// A memory BAR is at least this long: the low four bits hold its type.
const MIN_MEMORY_LEN: u64 = 16;

/// An I/O BAR is at least this long: the low two bits hold its type.
const MIN_IO_LEN: u64 = 4;

/// More than half of the port space cannot be decoded by one BAR.
const MAX_IO_LEN: u64 = 1 << 15;

/// The largest region a 32-bit address can select.
const MAX_MEMORY_32_LEN: u64 = 1 << 31;

/// x86 has at most 52 bits of physical address (Intel SDM vol. 3 §4.1.4).
const PHYSICAL_ADDRESS_END: u64 = 1 << 52;

/// The address space and width of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; the register after it is the upper half of the address.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// A range of I/O ports.
    Io,
}

impl fmt::Display for BarKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BarKind::Memory32 { .. } => "32-bit memory",
            BarKind::Memory64 { .. } => "64-bit memory",
            BarKind::Io => "I/O ports",
        })
    }
}

impl BarKind {
    /// The kind that the low bits of a BAR register stand for. The reserved types count as 32-bit memory.
    pub const fn from_register(value: u32) -> Self {
        let prefetchable = value & bar::PREFETCHABLE != 0;
        if value & bar::IO != 0 {
            BarKind::Io
        } else if value & (bar::MEMORY_64 | MEMORY_BELOW_1M) == bar::MEMORY_64 {
            BarKind::Memory64 { prefetchable }
        } else {
            BarKind::Memory32 { prefetchable }
        }
    }

    /// The read-only low bits of the register.
    const fn flags(self) -> u32 {
        let (width, prefetchable) = match self {
            BarKind::Io => return bar::IO,
            BarKind::Memory32 { prefetchable } => (0, prefetchable),
            BarKind::Memory64 { prefetchable } => (bar::MEMORY_64, prefetchable),
        };
        if prefetchable {
            width | bar::PREFETCHABLE
        } else {
            width
        }
    }

    /// The bit of the command register that turns decoding on.
    const fn decode(self) -> u16 {
        if matches!(self, BarKind::Io) {
            command::IO
        } else {
            command::MEMORY
        }
    }

    const fn is_64_bit(self) -> bool {
        matches!(self, BarKind::Memory64 { .. })
    }
}

/// The obsolete type "below 1 MiB"; together with the 64-bit type it is reserved.
const MEMORY_BELOW_1M: u32 = 1 << 1;

/// One BAR as the device declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Address space and width.
    pub kind: BarKind,
    /// Bytes it decodes, a power of two.
    pub len_bytes: u64,
}

/// A BAR that no type 0 header can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarError {
    /// The length is no power of two, or out of the kind's range.
    #[error("BAR {index} cannot be {len_bytes:#x} bytes of {kind}")]
    Length {
        /// Which of the six registers it is in.
        index: usize,
        /// What it claims to be.
        kind: BarKind,
        /// What it claims to decode.
        len_bytes: u64,
    },
    /// The register after a 64-bit BAR is missing or in use.
    #[error("BAR {index} is 64 bits wide, but the register after it is not free")]
    UpperHalf {
        /// The register of the lower half.
        index: usize,
    },
}

/// Where each BAR decodes; `None` where it decodes nothing.
pub type Places = [Option<Place>; BAR_COUNT];

/// The six base address registers of a function.
#[derive(Clone, Debug)]
pub struct Bars {
    bars: [Option<Bar>; BAR_COUNT],
    /// Address bits as written; the type bits are added when read.
    values: [u32; BAR_COUNT],
}

impl Bars {
    /// Registers for `bars`, all at address 0.
    ///
    /// # Errors
    /// [`BarError`] for the first BAR that cannot be.
    pub fn new(bars: [Option<Bar>; BAR_COUNT]) -> Result<Self, BarError> {
        for (index, declared) in bars.iter().enumerate() {
            let Some(declared) = declared else { continue };
            check_length(index, *declared)?;
            if declared.kind.is_64_bit() && !matches!(bars.get(index + 1), Some(None)) {
                return Err(BarError::UpperHalf { index });
            }
        }
        Ok(Self {
            bars,
            values: [0; BAR_COUNT],
        })
    }

    /// What each register declares.
    pub fn declared(&self) -> &[Option<Bar>; BAR_COUNT] {
        &self.bars
    }

    /// Reads at `offset` bytes from the first register.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.register(at / 4).to_le_bytes()[at % 4];
        }
    }

    /// Writes at `offset` bytes from the first register; bytes beyond the last are ignored.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, &byte) in (usize::from(offset)..usize::from(BAR_REGISTERS_LEN)).zip(data) {
            let mut bytes = self.values[at / 4].to_le_bytes();
            bytes[at % 4] = byte;
            self.values[at / 4] = u32::from_le_bytes(bytes) & self.writable(at / 4);
        }
    }

    /// All addresses back to 0.
    pub fn reset(&mut self) {
        self.values = [0; BAR_COUNT];
    }

    /// Where the BARs are when the command register holds `command`.
    pub fn places(&self, command: u16) -> Places {
        std::array::from_fn(|index| {
            let declared = self.bars[index]?;
            (command & declared.kind.decode() != 0).then(|| self.place(index, declared))?
        })
    }

    /// A place a region can really have. Address 0 is an unassigned BAR, not one over the guest's RAM; an
    /// address of all ones is a sizing probe.
    fn place(&self, index: usize, declared: Bar) -> Option<Place> {
        let low = u64::from(self.values[index]);
        let (address, end) = match declared.kind {
            BarKind::Io => (low, 1 << 16),
            BarKind::Memory32 { .. } => (low, 1 << 32),
            BarKind::Memory64 { .. } => (
                low | u64::from(self.values[index + 1]) << 32,
                PHYSICAL_ADDRESS_END,
            ),
        };
        let last = address.checked_add(declared.len_bytes - 1)?;
        if address == 0 || last >= end - 1 {
            return None;
        }
        match declared.kind {
            BarKind::Io => u16::try_from(address).ok().map(Place::Port),
            _ => Some(Place::Memory(GuestAddress(address))),
        }
    }

    fn register(&self, index: usize) -> u32 {
        let flags = self
            .bars
            .get(index)
            .copied()
            .flatten()
            .map_or(0, |declared| declared.kind.flags());
        self.values.get(index).copied().unwrap_or(0) | flags
    }

    /// Address bits of register `index`: a BAR's own, or those of the 64-bit BAR that it is the half of.
    fn writable(&self, index: usize) -> u32 {
        let above = |len_bytes: u64| !(len_bytes - 1);
        if let Some(declared) = self.bars[index] {
            return low_half(above(declared.len_bytes));
        }
        match index.checked_sub(1).and_then(|low| self.bars[low]) {
            Some(low) if low.kind.is_64_bit() => low_half(above(low.len_bytes) >> 32),
            _ => 0,
        }
    }
}

/// The moves that bring `regions` from one set of places to another. Nothing for a BAR that stays, or that
/// has no region.
pub fn remaps(from: &Places, to: &Places, regions: &[Option<Arc<Region>>; BAR_COUNT]) -> Vec<Remap> {
    let moved = (0..BAR_COUNT).filter(|&index| from[index] != to[index]);
    moved
        .filter_map(|index| {
            let region = regions[index].clone()?;
            Some(Remap::new(region, from[index], to[index]))
        })
        .collect()
}

fn check_length(index: usize, declared: Bar) -> Result<(), BarError> {
    let Bar { kind, len_bytes } = declared;
    let range = match kind {
        BarKind::Io => MIN_IO_LEN..=MAX_IO_LEN,
        BarKind::Memory32 { .. } => MIN_MEMORY_LEN..=MAX_MEMORY_32_LEN,
        BarKind::Memory64 { .. } => MIN_MEMORY_LEN..=PHYSICAL_ADDRESS_END / 2,
    };
    let possible = len_bytes.is_power_of_two() && range.contains(&len_bytes);
    possible.then_some(()).ok_or(BarError::Length {
        index,
        kind,
        len_bytes,
    })
}

/// The upper half of an address is another register.
fn low_half(bits: u64) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests;

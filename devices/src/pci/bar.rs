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
use crate::device::{Place, Remap};
use crate::region::Region;

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
    /// I/O ports.
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
        /// Which register.
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

/// The six registers.
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
            Some(Remap {
                region,
                from: from[index],
                to: to[index],
            })
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::RamDevice;

    const MEMORY: u16 = command::MEMORY;

    fn bar(kind: BarKind, len_bytes: u64) -> Option<Bar> {
        Some(Bar { kind, len_bytes })
    }

    fn memory_32(len_bytes: u64) -> Option<Bar> {
        bar(BarKind::Memory32 { prefetchable: false }, len_bytes)
    }

    fn memory_64(len_bytes: u64) -> Option<Bar> {
        bar(BarKind::Memory64 { prefetchable: true }, len_bytes)
    }

    /// BAR 0: 128 KiB, BAR 1 and 2: 16 GiB in 64 bits, BAR 3: 32 ports.
    fn bars() -> Bars {
        let declared = [
            memory_32(0x20000),
            memory_64(16 << 30),
            None,
            bar(BarKind::Io, 0x20),
            None,
            None,
        ];
        Bars::new(declared).expect("legal BARs")
    }

    fn read(bars: &Bars, index: u16) -> u32 {
        let mut data = [0; 4];
        bars.read(4 * index, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(bars: &mut Bars, index: u16, value: u32) {
        bars.write(4 * index, &value.to_le_bytes());
    }

    fn memory(address: u64) -> Option<Place> {
        Some(Place::Memory(GuestAddress(address)))
    }

    #[test]
    fn sizing_finds_the_length_and_the_kind() {
        let mut bars = bars();
        (0..6).for_each(|index| write(&mut bars, index, u32::MAX));
        let values: Vec<_> = (0..6).map(|index| read(&bars, index)).collect();
        assert_eq!(values, [0xfffe_0000, 0x0000_000c, 0xffff_fffc, 0xffff_ffe1, 0, 0]);
    }

    #[test]
    fn sizing_moves_nothing_while_decoding_is_on() {
        let mut bars = bars();
        write(&mut bars, 0, u32::MAX);
        write(&mut bars, 1, u32::MAX);
        write(&mut bars, 2, u32::MAX);
        write(&mut bars, 3, u32::MAX);
        assert_eq!(bars.places(command::MEMORY | command::IO), [None; 6]);
    }

    #[test]
    fn decode_bits_decide_who_has_a_place() {
        let mut bars = bars();
        write(&mut bars, 0, 0xfe00_0000);
        write(&mut bars, 3, 0xc001);
        assert_eq!(bars.places(0), [None; 6]);
        assert_eq!(bars.places(MEMORY)[0], memory(0xfe00_0000));
        assert_eq!(bars.places(MEMORY)[3], None);
        assert_eq!(bars.places(command::IO)[3], Some(Place::Port(0xc000)));
    }

    #[test]
    fn each_half_of_a_64_bit_bar_moves_it() {
        let mut bars = bars();
        write(&mut bars, 2, 0x10);
        assert_eq!(bars.places(MEMORY)[1], memory(0x10_0000_0000));
        // A 16 GiB BAR has address bits 34 and up: the lower half holds none of them.
        write(&mut bars, 1, 0xffff_fff0);
        assert_eq!(bars.places(MEMORY)[1], memory(0x10_0000_0000));
        write(&mut bars, 2, 0x18);
        assert_eq!(bars.places(MEMORY)[1], memory(0x18_0000_0000));
    }

    #[test]
    fn a_64_bit_bar_may_begin_anywhere_but_in_the_last_register() {
        for index in 0..5 {
            let mut declared = [None; 6];
            declared[index] = memory_64(0x4000);
            let mut bars = Bars::new(declared).expect("a free register follows");
            write(&mut bars, index as u16, 0xffff_c000);
            write(&mut bars, index as u16 + 1, 0x1);
            assert_eq!(bars.places(MEMORY)[index], memory(0x1_ffff_c000));
        }
        let last = [None, None, None, None, None, memory_64(0x4000)];
        assert_eq!(Bars::new(last).err(), Some(BarError::UpperHalf { index: 5 }));
        let taken = [memory_64(0x4000), memory_32(0x4000), None, None, None, None];
        assert_eq!(Bars::new(taken).err(), Some(BarError::UpperHalf { index: 0 }));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let wrong = [
            memory_32(0),
            memory_32(3),
            memory_32(8),
            memory_32(1 << 32),
            memory_32(u64::MAX),
            memory_64(0x1001),
            memory_64(1 << 63),
            memory_64(1 << 52),
            bar(BarKind::Io, 2),
            bar(BarKind::Io, 0x18),
            bar(BarKind::Io, 1 << 16),
        ];
        let accepted = wrong
            .into_iter()
            .filter(|wrong| Bars::new([*wrong, None, None, None, None, None]).is_ok());
        assert_eq!(accepted.count(), 0);
    }

    #[test]
    fn writes_of_any_width_meet_the_same_register() {
        let mut bytes = bars();
        (0..4).for_each(|at| bytes.write(at, &[0xab]));
        assert_eq!(read(&bytes, 0), 0xabaa_0000);
        let mut words = bars();
        words.write(2, &[0x34, 0x12]);
        assert_eq!(read(&words, 0), 0x1234_0000);
    }

    #[test]
    fn addresses_no_region_can_have_are_no_place() {
        let mut bars = bars();
        assert_eq!(bars.places(MEMORY), [None; 6], "address 0 is unassigned");
        write(&mut bars, 2, 1 << 20);
        assert_eq!(bars.places(MEMORY)[1], None, "beyond 52 bits");
    }

    #[test]
    fn only_a_changed_place_is_a_remap() {
        let region = Region::trapped(RamDevice::new("bar", 0x20000), 0x20000);
        let regions = [Some(region), None, None, None, None, None];
        let mut bars = bars();
        write(&mut bars, 0, 0xfe00_0000);
        let off = bars.places(0);
        write(&mut bars, 0, u32::MAX);
        assert!(remaps(&off, &bars.places(0), &regions).is_empty());
        write(&mut bars, 0, 0xfd00_0000);
        let on = bars.places(MEMORY);
        let moves = remaps(&off, &on, &regions);
        assert_eq!(
            (moves.len(), moves[0].from, moves[0].to),
            (1, None, memory(0xfd00_0000))
        );
        assert!(remaps(&on, &on, &regions).is_empty());
    }

    #[test]
    fn reset_unassigns() {
        let mut bars = bars();
        write(&mut bars, 0, 0xfe00_0000);
        bars.reset();
        assert_eq!(read(&bars, 0), 0);
    }

    #[test]
    fn kinds_are_read_from_the_low_bits() {
        assert_eq!(BarKind::from_register(0xe001), BarKind::Io);
        assert_eq!(
            BarKind::from_register(0xfe00_0000),
            BarKind::Memory32 { prefetchable: false }
        );
        assert_eq!(
            BarKind::from_register(0x0000_000c),
            BarKind::Memory64 { prefetchable: true }
        );
        assert_eq!(
            BarKind::from_register(0x0000_0006),
            BarKind::Memory32 { prefetchable: false }
        );
    }

    fn any_bar() -> impl Strategy<Value = Option<Bar>> {
        let kind = prop_oneof![
            any::<bool>().prop_map(|prefetchable| BarKind::Memory32 { prefetchable }),
            any::<bool>().prop_map(|prefetchable| BarKind::Memory64 { prefetchable }),
            Just(BarKind::Io),
        ];
        let len = prop_oneof![(0u32..64).prop_map(|bit| 1u64 << bit), any::<u64>()];
        prop::option::of((kind, len).prop_map(|(kind, len_bytes)| Bar { kind, len_bytes }))
    }

    /// The registers without those that cannot be, as a function that lies is shown.
    fn possible(mut declared: [Option<Bar>; BAR_COUNT]) -> Bars {
        loop {
            match Bars::new(declared) {
                Ok(bars) => return bars,
                Err(BarError::Length { index, .. } | BarError::UpperHalf { index }) => declared[index] = None,
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_places_are_aligned_and_inside_their_space(
            declared in prop::array::uniform6(any_bar()),
            writes in prop::collection::vec((0u16..24, prop::collection::vec(any::<u8>(), 1..5)), 0..12),
            command: u16,
        ) {
            let mut bars = possible(declared);
            let declared = *bars.declared();
            let flags: Vec<_> = (0..6).map(|index| read(&bars, index)).collect();
            for (at, data) in writes {
                bars.write(at, &data);
            }
            for (index, place) in bars.places(command).into_iter().enumerate() {
                prop_assert_eq!(read(&bars, index as u16) & flags[index], flags[index]);
                let Some(place) = place else { continue };
                let declared = declared[index].expect("only a BAR has a place");
                let (address, end) = match (place, declared.kind) {
                    (Place::Port(port), BarKind::Io) => (u64::from(port), 1 << 16),
                    (Place::Memory(address), BarKind::Memory32 { .. }) => (address.0, 1 << 32),
                    (Place::Memory(address), BarKind::Memory64 { .. }) => (address.0, 1 << 52),
                    other => panic!("{other:?}"),
                };
                prop_assert!(address != 0 && address % declared.len_bytes == 0);
                prop_assert!(address + declared.len_bytes <= end);
            }
        }
    }
}

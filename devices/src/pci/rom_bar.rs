//! The expansion ROM base address register of a type 0 header (PCIe §7.5.1.2.4).

use vm_memory::GuestAddress;

use super::spec::{command, rom_bar};
use crate::place::Place;

/// Bytes the register takes in configuration space.
pub const ROM_BAR_LEN: u16 = 4;

/// The low eleven bits of the register are no address bits.
const MIN_LEN: u32 = 2 << 10;

/// A ROM can ask for this much at most.
pub const MAX_ROM_LEN: u32 = 16 << 20;

/// The register, with an address and an enable bit of its own.
#[derive(Clone, Debug)]
pub struct RomBar {
    len_bytes: u32,
    value: u32,
}

impl RomBar {
    /// A register for a ROM with `content_len` bytes, disabled at address 0. What is beyond
    /// [`MAX_ROM_LEN`] is not decoded.
    pub fn new(content_len: usize) -> Self {
        let len = u32::try_from(content_len).unwrap_or(MAX_ROM_LEN);
        Self {
            len_bytes: len.clamp(MIN_LEN, MAX_ROM_LEN).next_power_of_two(),
            value: 0,
        }
    }

    /// Bytes it decodes, a power of two.
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.len_bytes)
    }

    /// Reads at `offset` bytes into the register.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let bytes = self.value.to_le_bytes();
        for (byte, value) in data.iter_mut().zip(bytes.iter().skip(usize::from(offset))) {
            *byte = *value;
        }
    }

    /// Writes at `offset` bytes into the register.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let mut bytes = self.value.to_le_bytes();
        for (byte, value) in bytes.iter_mut().skip(usize::from(offset)).zip(data) {
            *byte = *value;
        }
        let writable = !(self.len_bytes - 1) | rom_bar::ENABLE;
        self.value = u32::from_le_bytes(bytes) & writable;
    }

    /// Disabled at address 0.
    pub fn reset(&mut self) {
        self.value = 0;
    }

    /// Where the ROM is when the command register holds `command`. As with other BARs, address 0 and a
    /// sizing probe are no place.
    pub fn place(&self, command: u16) -> Option<Place> {
        let decodes = command & command::MEMORY != 0 && self.value & rom_bar::ENABLE != 0;
        let address = self.value & !rom_bar::ENABLE;
        let last = address.checked_add(self.len_bytes - 1)?;
        let place = Place::Memory(GuestAddress(u64::from(address)));
        (decodes && address != 0 && last != u32::MAX).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u16 = command::MEMORY;

    fn read(rom: &RomBar) -> u32 {
        let mut data = [0; 4];
        rom.read(0, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn sizing_finds_a_power_of_two() {
        let mut rom = RomBar::new(0xa001);
        rom.write(0, &0xffff_f800u32.to_le_bytes());
        assert_eq!(read(&rom), 0xffff_0000);
        assert_eq!(rom.len_bytes(), 0x10000);
        assert_eq!(rom.place(MEMORY), None);
    }

    #[test]
    fn lengths_stay_within_what_the_register_can_say() {
        assert_eq!(RomBar::new(0).len_bytes(), 2 << 10);
        assert_eq!(RomBar::new(usize::MAX).len_bytes(), 16 << 20);
    }

    #[test]
    fn it_decodes_when_both_enable_bits_say_so() {
        let mut rom = RomBar::new(0x1_0000);
        rom.write(0, &0xfe00_0000u32.to_le_bytes());
        assert_eq!(rom.place(MEMORY), None);
        rom.write(0, &[1]);
        assert_eq!(rom.place(MEMORY), Some(Place::Memory(GuestAddress(0xfe00_0000))));
        assert_eq!(rom.place(command::IO), None);
    }

    #[test]
    fn neither_address_0_nor_a_probe_is_a_place() {
        let mut rom = RomBar::new(0x1_0000);
        rom.write(0, &1u32.to_le_bytes());
        assert_eq!(rom.place(MEMORY), None);
        rom.write(0, &u32::MAX.to_le_bytes());
        assert_eq!(rom.place(MEMORY), None);
    }

    #[test]
    fn bytes_are_written_one_by_one_and_never_beyond_the_register() {
        let mut rom = RomBar::new(0x800);
        rom.write(3, &[0xfe, 0xff, 0xff]);
        rom.write(2, &[0x12]);
        rom.write(7, &[0xff]);
        assert_eq!(read(&rom), 0xfe12_0000);
        let mut data = [0x55; 2];
        rom.read(3, &mut data);
        assert_eq!(data, [0xfe, 0x55]);
    }
}

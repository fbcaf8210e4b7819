//! The expansion ROM, as the guest finds it.

use super::*;

fn with_rom() -> MockHardware {
    MockHardware {
        rom_len: 0x1_8000,
        ..nic()
    }
}

fn with(rom: RomSource) -> Appearance {
    Appearance {
        rom,
        ..Appearance::default()
    }
}

impl Guest {
    /// Puts the ROM somewhere; what moved when decoding came on.
    fn enable_rom(&self) -> Vec<Remap> {
        self.write(0x30, &0xfe20_0001u32.to_le_bytes());
        self.write(0x04, &[0x02, 0x00])
    }
}

#[test]
fn the_rom_is_sized_without_touching_the_hardware() {
    let guest = guest(with_rom());
    guest.write(0x30, &0xffff_f800u32.to_le_bytes());
    assert_eq!(guest.u32(0x30), 0xfffe_0000);
    assert!(guest.hardware.take_calls().is_empty());
    assert!(lock(&guest.hardware.reads).is_empty());
}

#[test]
fn the_rom_is_read_from_the_hardware_once_and_never_written() {
    let guest = guest(with_rom());
    let remaps = guest.enable_rom();
    assert_eq!(remaps[0].to, memory(0xfe20_0000));
    let rom = remaps[0].region.device();
    lock(&guest.hardware.reads).clear();
    let (mut inside, mut across) = ([0; 4], [0; 4]);
    rom.read(0x100, &mut inside);
    rom.read(0x1_7ffe, &mut across);
    assert_eq!(inside, [0x5a; 4]);
    assert_eq!(across, [0x5a, 0x5a, 0xff, 0xff]);
    let reads = vec![(HardwareRegion::Rom, 0, 0x1_8000)];
    assert_eq!(*lock(&guest.hardware.reads), reads);
    let _ = rom.write(0, &[1, 2, 3, 4]);
    assert!(guest.hardware.take_calls().is_empty());
}

#[test]
fn a_file_takes_the_place_of_the_rom() {
    let guest = guest_with(nic(), with(RomSource::Bytes(vec![0x55, 0xaa, 3].into())));
    let remaps = guest.enable_rom();
    let mut data = [0; 4];
    remaps[0].region.device().read(0, &mut data);
    assert_eq!(data, [0x55, 0xaa, 3, 0xff]);
}

#[test]
fn a_hidden_rom_is_none() {
    let guest = guest_with(with_rom(), with(RomSource::Hidden));
    guest.write(0x30, &u32::MAX.to_le_bytes());
    assert_eq!(guest.u32(0x30), 0);
    assert!(guest.enable_rom().is_empty());
}

#[test]
fn a_rom_of_a_dead_device_reads_as_ones() {
    let guest = guest(with_rom());
    let remaps = guest.enable_rom();
    guest.hardware.kill();
    let mut data = [0; 8];
    remaps[0].region.device().read(0, &mut data);
    assert_eq!(data, [0xff; 8]);
}

#[test]
fn a_rom_that_claims_to_be_endless_is_cut() {
    let guest = guest(MockHardware {
        rom_len: u64::MAX,
        ..nic()
    });
    guest.write(0x30, &u32::MAX.to_le_bytes());
    assert_eq!(guest.u32(0x30), 0xff00_0001);
}

#[test]
fn a_reset_takes_the_rom_away() {
    let guest = guest(with_rom());
    guest.enable_rom();
    let gone = remaps(guest.function.reset());
    assert_eq!((gone[0].from, gone[0].to), (memory(0xfe20_0000), None));
    assert_eq!(guest.u32(0x30), 0);
}

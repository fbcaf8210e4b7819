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

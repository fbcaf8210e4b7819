use std::sync::Arc;

use super::*;
use crate::region::Device;
use crate::region::MappedPiece;
use crate::testing::{FakeBacking, FakeListener, Heard, RamDevice};

const PAGE: u64 = 0x1000;

fn at(address: u64) -> Place {
    Place::Memory(GuestAddress(address))
}

fn backing(len_bytes: u64) -> Arc<FakeBacking> {
    Arc::new(FakeBacking {
        host: crate::region::HostAddress(0x7000_0000),
        len_bytes,
    })
}

/// A region of two pages whose second page is mapped.
fn half_mapped(device: Arc<dyn Device>) -> Arc<Region> {
    Region::with_pieces(
        device,
        2 * PAGE,
        vec![MappedPiece {
            offset: PAGE,
            backing: backing(PAGE),
        }],
    )
}

fn moved(region: &Arc<Region>, from: Option<u64>, to: Option<u64>) -> Effect {
    Effect::Remap(vec![Remap::new(region.clone(), from.map(at), to.map(at))])
}

fn byte_at(space: &AddressSpace, address: u64) -> u8 {
    let mut data = [0];
    space.read(GuestAddress(address), &mut data);
    data[0]
}

#[test]
fn accesses_reach_the_device_with_offsets_of_its_own() {
    let space = AddressSpace::new();
    let device = RamDevice::new("ram", 16);
    space
        .add(at(0x5000), Region::trapped(device.clone(), 16))
        .expect("free");
    assert!(matches!(space.write(GuestAddress(0x5004), &[7]), Effect::None));
    assert_eq!(device.writes(), [(4, vec![7])]);
    assert_eq!(byte_at(&space, 0x5004), 7);
}

#[test]
fn accesses_that_trap_are_counted_and_look_ups_are_not() {
    let space = AddressSpace::new();
    let region = half_mapped(RamDevice::new("bar", 2 * PAGE as usize));
    space.add(at(0x5000), region.clone()).expect("free");
    assert_eq!(region.trapped_accesses(), 0);
    byte_at(&space, 0x5000);
    let _ = space.write(GuestAddress(0x5004), &[7]);
    byte_at(&space, 0x9000);
    assert_eq!(region.trapped_accesses(), 2);
}

#[test]
fn nobody_answers_with_ones() {
    let space = AddressSpace::new();
    let mut data = [0; 4];
    space.read(GuestAddress(0x1234), &mut data);
    assert_eq!(data, [0xff; 4]);
    space.read_port(0x60, &mut data[..1]);
    assert!(matches!(space.write_port(0x60, &[0]), Effect::None));
}

#[test]
fn an_access_over_the_end_is_cut_there() {
    let space = AddressSpace::new();
    let device = RamDevice::new("ram", 4);
    space
        .add(at(0x5000), Region::trapped(device.clone(), 4))
        .expect("free");
    let _none = space.write(GuestAddress(0x5002), &[1, 2, 3, 4]);
    assert_eq!(device.writes(), [(2, vec![1, 2])]);
    let mut data = [0; 4];
    space.read(GuestAddress(0x5002), &mut data);
    assert_eq!(data, [1, 2, 0xff, 0xff]);
}

#[test]
fn regions_of_ours_may_not_overlap() {
    let space = AddressSpace::new();
    space
        .add(at(0x5000), Region::trapped(RamDevice::new("a", 16), 16))
        .expect("free");
    let error = space
        .add(at(0x500f), Region::trapped(RamDevice::new("b", 16), 16))
        .expect_err("taken");
    assert_eq!(
        error.to_string(),
        "b does not fit at 0x500f: 0x10 bytes there are not free"
    );
    assert!(
        space
            .add(Place::Port(0xfff8), Region::trapped(RamDevice::new("c", 16), 16))
            .is_err()
    );
}

#[test]
fn listeners_hear_of_mapped_pieces_only() {
    let space = AddressSpace::new();
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("nothing to refuse");
    let region = half_mapped(RamDevice::new("bar", 0x2000));
    space.add(at(0x10000), region.clone()).expect("free");
    space.remove(at(0x10000), &region);
    let page = 0x11000;
    assert_eq!(
        listener.heard(),
        [Heard::Map(page, PAGE), Heard::Unmap(page, PAGE)]
    );
}

#[test]
fn a_listener_that_goes_hears_that_all_is_gone_and_no_more() {
    let space = AddressSpace::new();
    space.add(at(0), Region::ram(backing(4 * PAGE))).expect("free");
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("accepted");
    let known: Arc<dyn MapListener> = listener.clone();
    space.remove_listener(&known);
    space.remove_listener(&known);
    space
        .add(at(0x10_0000), Region::ram(backing(PAGE)))
        .expect("free");
    assert_eq!(
        listener.heard(),
        [Heard::Map(0, 4 * PAGE), Heard::Unmap(0, 4 * PAGE)]
    );
}

#[test]
fn a_late_listener_hears_of_what_is_there() {
    let space = AddressSpace::new();
    space.add(at(0), Region::ram(backing(4 * PAGE))).expect("free");
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("accepted");
    assert_eq!(listener.heard(), [Heard::Map(0, 4 * PAGE)]);
    drop(space);
    assert_eq!(listener.heard().len(), 2, "and of its end");
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let space = AddressSpace::new();
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("nothing to refuse");
    listener.set_refused(true);
    assert!(space.add(at(0), Region::ram(backing(PAGE))).is_err());
    listener.set_refused(false);
    space
        .add(at(0), Region::ram(backing(PAGE)))
        .expect("the place is free again");
}

#[test]
fn a_bar_moves_with_one_unmap_and_one_map() {
    let space = AddressSpace::new();
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("nothing to refuse");
    let region = half_mapped(RamDevice::new("bar", 0x2000));
    assert!(matches!(
        space.apply(moved(&region, None, Some(0x10000))),
        Effect::None
    ));
    assert!(matches!(
        space.apply(moved(&region, Some(0x10000), Some(0x40000))),
        Effect::None
    ));
    let (old, new) = (0x11000, 0x41000);
    assert_eq!(
        listener.heard(),
        [
            Heard::Map(old, PAGE),
            Heard::Unmap(old, PAGE),
            Heard::Map(new, PAGE)
        ]
    );
    assert_eq!(byte_at(&space, 0x10000), 0xff);
}

#[test]
fn a_bar_that_one_listener_refuses_is_taken_from_all_and_traps() {
    let space = AddressSpace::new();
    let (agrees, refuses) = (FakeListener::new(), FakeListener::new());
    for listener in [&agrees, &refuses] {
        space.add_listener(listener.clone()).expect("nothing to refuse");
    }
    refuses.set_refused(true);
    let device = RamDevice::new("bar", 0x2000);
    let region = half_mapped(device.clone());
    let _none = space.apply(moved(&region, None, Some(0x10000)));
    assert_eq!(
        agrees.heard(),
        [Heard::Map(0x11000, PAGE), Heard::Unmap(0x11000, PAGE)]
    );
    let _none = space.write(GuestAddress(0x11000), &[7]);
    assert_eq!(device.writes().len(), 1);
    refuses.set_refused(false);
    let _none = space.apply(moved(&region, Some(0x10000), Some(0x20000)));
    assert_eq!(agrees.heard()[2..], [Heard::Map(0x21000, PAGE)]);
}

#[test]
fn a_bar_over_ram_has_no_effect_until_it_moves_away() {
    let space = AddressSpace::new();
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("nothing to refuse");
    space.add(at(0), Region::ram(backing(16 * PAGE))).expect("free");
    let region = half_mapped(RamDevice::new("bar", 0x2000));
    let _none = space.apply(moved(&region, None, Some(0x8000)));
    assert_eq!(listener.heard().len(), 1, "no memory slot over RAM");
    let _none = space.apply(moved(&region, Some(0x8000), Some(0x40000)));
    assert_eq!(listener.heard().len(), 2);
}

#[test]
fn bars_may_pass_over_each_other() {
    let space = AddressSpace::new();
    let (a, b) = (RamDevice::new("a", 0x2000), RamDevice::new("b", 0x2000));
    let (a_region, b_region) = (half_mapped(a.clone()), half_mapped(b.clone()));
    let _none = space.apply(moved(&a_region, None, Some(0x10000)));
    let _none = space.apply(moved(&b_region, None, Some(0x10000)));
    let _none = space.write(GuestAddress(0x10000), &[1]);
    assert_eq!(
        (a.writes().len(), b.writes().len()),
        (1, 0),
        "the first keeps the place"
    );
    let _none = space.apply(moved(&a_region, Some(0x10000), Some(0x20000)));
    let _none = space.write(GuestAddress(0x10000), &[2]);
    assert_eq!(
        (a.writes().len(), b.writes().len()),
        (1, 1),
        "the second takes it when it is free"
    );
}

#[test]
fn removing_devices_leaves_ram() {
    let space = AddressSpace::new();
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("nothing to refuse");
    space.add(at(0), Region::ram(backing(PAGE))).expect("free");
    let (placed, waiting) = (
        half_mapped(RamDevice::new("a", 0x2000)),
        half_mapped(RamDevice::new("b", 0x2000)),
    );
    let _none = space.apply(moved(&placed, None, Some(0x10000)));
    let _none = space.apply(moved(&waiting, None, Some(0x10000)));
    space
        .add(Place::Port(0x3f8), Region::trapped(RamDevice::new("c", 8), 8))
        .expect("free");
    space.remove_devices();
    assert_eq!(
        listener.heard()[1..],
        [Heard::Map(0x11000, PAGE), Heard::Unmap(0x11000, PAGE)]
    );
    space
        .add(Place::Port(0x3f8), Region::trapped(RamDevice::new("d", 8), 8))
        .expect("free again");
}

#[test]
fn effects_for_the_machine_come_back() {
    struct Button;
    impl Device for Button {
        fn name(&self) -> &str {
            "button"
        }
        fn read(&self, _: u64, _: &mut [u8]) {}
        fn write(&self, _: u64, _: &[u8]) -> Effect {
            Effect::Reset
        }
    }
    let space = AddressSpace::new();
    space
        .add(Place::Port(0x64), Region::trapped(Arc::new(Button), 1))
        .expect("free");
    assert!(matches!(space.write_port(0x64, &[0xfe]), Effect::Reset));
}

#[test]
fn a_region_stays_in_one_place_whatever_order_its_moves_arrive_in() {
    let space = AddressSpace::new();
    let listener = FakeListener::new();
    space.add_listener(listener.clone()).expect("nothing to refuse");
    let region = half_mapped(RamDevice::new("bar", 0x2000));
    let _none = space.apply(moved(&region, None, Some(0x1_0000)));
    let _none = space.apply(moved(&region, Some(0x2_0000), Some(0x3_0000)));
    let _none = space.apply(moved(&region, Some(0x1_0000), Some(0x2_0000)));
    assert_eq!(
        (byte_at(&space, 0x1_0000), byte_at(&space, 0x3_0000)),
        (0xff, 0xff)
    );
    assert_eq!(byte_at(&space, 0x2_0000), 0);
    let _none = space.apply(moved(&region, Some(0x3_0000), None));
    assert_eq!(byte_at(&space, 0x2_0000), 0xff);
    let heard = listener.heard();
    let maps = heard
        .iter()
        .filter(|heard| matches!(heard, Heard::Map(..)))
        .count();
    assert_eq!((maps, heard.len()), (3, 6), "what was mapped was unmapped");
}

#[test]
fn a_move_that_a_later_one_overtook_is_void() {
    let space = AddressSpace::new();
    let region = half_mapped(RamDevice::new("bar", 0x2000));
    let earlier = moved(&region, None, Some(0x10000));
    let later = moved(&region, Some(0x10000), None);
    let _none = space.apply(later);
    let _none = space.apply(earlier);
    assert_eq!(space.to_string(), "");
}

#[test]
fn a_region_that_left_for_good_is_refused() {
    let space = AddressSpace::new();
    let region = half_mapped(RamDevice::new("bar", 0x2000));
    let _none = space.apply(moved(&region, None, Some(0x10000)));
    let _none = space.apply(Effect::Remap(vec![Remap::last(
        region.clone(),
        Some(at(0x10000)),
    )]));
    let _none = space.apply(moved(&region, None, Some(0x10000)));
    assert_eq!(space.to_string(), "");
    assert_eq!(Arc::strong_count(&region), 1, "nothing keeps it");
}

#[test]
fn images_are_for_those_who_ask_for_them() {
    let space = AddressSpace::new();
    let (cpus, dma) = (FakeListener::new(), FakeListener::new());
    cpus.hear_of_images();
    space.add_listener(cpus.clone()).expect("nothing is mapped");
    let page = MappedPiece {
        offset: PAGE,
        backing: backing(PAGE),
    };
    let region = Region::with_images(RamDevice::new("window", 2 * PAGE as usize), 2 * PAGE, vec![page]);
    space.add(at(0x10_0000), region).expect("free");
    space.add_listener(dma.clone()).expect("nothing that it hears of");
    space.remove_devices();
    assert_eq!(
        cpus.heard(),
        [Heard::Map(0x10_1000, PAGE), Heard::Unmap(0x10_1000, PAGE)]
    );
    assert_eq!(dma.heard(), []);
}

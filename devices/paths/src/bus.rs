//! Trapped accesses: from an address to the device that answers, and to a function's configuration space.

use std::hint::black_box;
use std::sync::Arc;

use strait_devices::address_space::AddressSpace;
use strait_devices::pci::ecam::Ecam;
use strait_devices::pci::{RootComplex, RootPort, Upstream};
use strait_devices::region::Region;
use strait_devices::{Device, Effect, GuestAddress, Place};

use super::host::Host;

/// Where the configuration space of bus 0 begins.
const CONFIGURATION: u64 = 0xe000_0000;
/// A root port's interrupt line, a register of which every value reads back.
const LINE: u64 = CONFIGURATION + (1 << 15) + 0x3c;
/// As many as a guest with some devices has.
const REGIONS: u64 = 64;

/// A device that does nothing.
struct Registers;

impl Device for Registers {
    fn name(&self) -> &str {
        "registers"
    }

    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _: u64, _: &[u8]) -> Effect {
        Effect::None
    }
}

/// A read and a write among many regions.
pub(crate) fn look_up() -> Box<dyn FnMut()> {
    let space = AddressSpace::new();
    for region in 0..REGIONS {
        let place = Place::Memory(GuestAddress(0xc000_0000 + (region << 16)));
        space
            .add(place, Region::trapped(Arc::new(Registers), 0x1000))
            .expect("free");
    }
    let mut data = [0; 4];
    Box::new(move || {
        let at = GuestAddress(black_box(0xc000_0000 + (37 << 16) + 8));
        space.read(at, &mut data);
        let _none = black_box(space.write(at, &data));
    })
}

/// A machine with four root ports, its configuration space by memory.
fn machine() -> AddressSpace {
    let port = |number| {
        let upstream = Upstream::plain(Arc::new(Host));
        Arc::new(RootPort::new(number, Vec::new(), upstream))
    };
    let root = Arc::new(RootComplex::new((1..=4).map(port).collect()));
    let space = AddressSpace::new();
    let region = Region::trapped(Arc::new(Ecam::new(root)), 1 << 20);
    space
        .add(Place::Memory(GuestAddress(CONFIGURATION)), region)
        .expect("free");
    space
}

/// 32 bits of a root port's configuration space.
pub(crate) fn read_configuration() -> Box<dyn FnMut()> {
    let space = machine();
    let mut data = [0; 4];
    Box::new(move || {
        space.read(GuestAddress(black_box(LINE)), &mut data);
        black_box(data);
    })
}

/// One byte of it, which a driver may choose.
pub(crate) fn write_configuration() -> Box<dyn FnMut()> {
    let space = machine();
    Box::new(move || {
        let _none = black_box(space.write(GuestAddress(black_box(LINE)), &[11]));
    })
}

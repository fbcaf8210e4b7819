//! A guest in front of functions that behave, and of functions that lie.

use std::sync::Arc;

use proptest::prelude::*;
use strait_devices::dma::AlwaysMapped;
use strait_devices::irq::SharedLine;
use strait_devices::pci::Function;
use strait_devices::pci::bar::{Bar, BarKind};
use strait_devices::region::Region;
use strait_devices::testing::{FakeLine, FakeRouter};
use strait_devices::{Effect, GuestAddress, Place, Remap};

use super::{Appearance, Passthrough, PassthroughError, RomSource};
use crate::hardware::{HardwareRegion, InterruptKind, RegionInfo};
use crate::mock::{Call, MockHardware};
use strait_devices::lock;

mod bars;
mod heard;
mod interrupts;
mod liars;
mod lies;
mod messages;
mod races;
mod registers;
mod rom;
mod state;

const CONFIG: HardwareRegion = HardwareRegion::Config;

/// Offsets of the capabilities of [`nic`].
const POWER: u16 = 0x40;
const MSI: u16 = 0x50;
const MSIX: u16 = 0x70;
const EXPRESS: u16 = 0xa0;
const VPD: u16 = 0xe0;
const VENDOR: u16 = 0xe8;

/// What an Intel 82576 looks like: a register BAR, ports, MSI-X in a BAR of its own, FLR.
fn nic() -> MockHardware {
    let mut express = [0; 0x3a];
    express[0] = 0x02;
    express[2..6].copy_from_slice(&0x1000_8cc2u32.to_le_bytes());
    express[6..8].copy_from_slice(&0x2810u16.to_le_bytes());
    let msix = [0x09, 0x00, 0x03, 0x00, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00];
    MockHardware::new()
        .with_config(0x04, &[0x00, 0x01])
        .with_config(0x0e, &[0x80])
        .with_config(0x30, &0xfffc_0001u32.to_le_bytes())
        .with_config(0x3d, &[0x01])
        .with_bar(0, 0xdead_0000, 0x20000)
        .with_bar(2, 0x0000_e001, 0x20)
        .with_bar(3, 0xdeaf_0000, 0x4000)
        .with_capabilities(&[
            (POWER as u8, 0x01, &[0x23, 0xc8, 0x00, 0x20, 0x00, 0x00]),
            (MSI as u8, 0x05, &[0x80, 0x01]),
            (MSIX as u8, 0x11, &msix),
            (EXPRESS as u8, 0x10, &express),
            (VPD as u8, 0x03, &[0x00, 0x00, 0x11, 0x22, 0x33, 0x44]),
            (VENDOR as u8, 0x09, &[0x08, 1, 2, 3, 4, 5]),
        ])
        .with_extended(&[
            (0x100, 0x0001),
            (0x140, 0x0003),
            (0x150, 0x000e),
            (0x160, 0x0010),
            (0x200, 0x000b),
        ])
        .with_interrupts(InterruptKind::Msi, 1, false)
        .with_interrupts(InterruptKind::Msix, 10, true)
}

struct Guest {
    hardware: Arc<MockHardware>,
    router: Arc<FakeRouter>,
    /// INTA to INTD.
    wires: [Arc<FakeLine>; 4],
    function: Arc<Passthrough>,
}

/// A guest in front of `hardware`, with what happened at the start left out of the record.
fn guest(hardware: MockHardware) -> Guest {
    guest_with(hardware, Appearance::default())
}

fn guest_with(hardware: MockHardware, appearance: Appearance) -> Guest {
    let (hardware, router) = (Arc::new(hardware), FakeRouter::new());
    let wires = std::array::from_fn(|_| FakeLine::new());
    let shared = wires
        .each_ref()
        .map(|wire: &Arc<FakeLine>| SharedLine::new(wire.clone()));
    let gate = Arc::new(AlwaysMapped);
    let function = Passthrough::new(hardware.clone(), router.clone(), &shared, appearance, gate);
    hardware.take_calls();
    lock(&hardware.reads).clear();
    Guest {
        hardware,
        router,
        wires,
        function: function.expect("an endpoint"),
    }
}

/// A function on wires that lead nowhere.
fn opened(hardware: Arc<MockHardware>) -> Result<Arc<Passthrough>, PassthroughError> {
    let wires = std::array::from_fn(|_| SharedLine::new(FakeLine::new()));
    let (router, gate) = (FakeRouter::new(), Arc::new(AlwaysMapped));
    Passthrough::new(hardware, router, &wires, Appearance::default(), gate)
}

fn refused(hardware: MockHardware) -> PassthroughError {
    opened(Arc::new(hardware)).err().expect("no endpoint")
}

impl Guest {
    fn u8(&self, register: u16) -> u8 {
        let mut data = [0];
        self.function.read_config(register, &mut data);
        data[0]
    }

    fn u16(&self, register: u16) -> u16 {
        let mut data = [0; 2];
        self.function.read_config(register, &mut data);
        u16::from_le_bytes(data)
    }

    fn u32(&self, register: u16) -> u32 {
        let mut data = [0; 4];
        self.function.read_config(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u16, data: &[u8]) -> Vec<Remap> {
        remaps(self.function.write_config(register, data))
    }

    /// Puts BAR 0 and 3 somewhere and turns decoding on; the regions that appeared.
    fn enable(&self) -> Vec<Remap> {
        self.write(0x10, &0xfe00_0000u32.to_le_bytes());
        self.write(0x1c, &0xfe10_0000u32.to_le_bytes());
        self.write(0x04, &[0x02, 0x00])
    }

    /// The list of capabilities, as the guest walks it.
    fn capabilities(&self) -> Vec<(u8, u8)> {
        let next = |at: u8| Some(at).filter(|at| *at != 0);
        let first = next(self.u8(0x34));
        std::iter::successors(first, |at| next(self.u8(u16::from(*at) + 1)))
            .map(|at| (at, self.u8(u16::from(at))))
            .take(64)
            .collect()
    }

    fn extended_capabilities(&self) -> Vec<(u16, u16)> {
        std::iter::successors(Some(0x100), |at| {
            Some((self.u32(*at) >> 20) as u16).filter(|at| *at != 0)
        })
        .map(|at| (at, self.u16(at)))
        .take(1024)
        .collect()
    }
}

fn remaps(effect: Effect) -> Vec<Remap> {
    match effect {
        Effect::None => Vec::new(),
        Effect::Remap(remaps) => remaps,
        other => panic!("{other:?}"),
    }
}

fn memory(address: u64) -> Option<Place> {
    Some(Place::Memory(GuestAddress(address)))
}

fn config_write(register: u16, data: &[u8]) -> Call {
    Call::Write(CONFIG, register.into(), data.to_vec())
}

fn pieces(region: &Region) -> Vec<(u64, u64)> {
    region
        .pieces()
        .iter()
        .map(|piece| (piece.offset, piece.backing.len_bytes()))
        .collect()
}

//! Everything of a PC that traps, but for the IOMMU: ports, I/O APIC, configuration space, BARs that move
//! over each other, over RAM and over the machine's own devices.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vm_memory::GuestAddress;

use super::endpoint::{DECODE, Endpoint};
use super::input::Input;
use crate::acpi_pm::SleepRegisters;
use crate::address_space::{AddressSpace, MapError, MapListener, Mapping};
use crate::irq::MsiRouter;
use crate::irq::ioapic::{Ioapic, PINS};
use crate::legacy::{KeyboardController, Pit, Pvpanic, ResetControl, Rtc, Serial, SystemControl};
use crate::pci::cam::{self, Cam};
use crate::pci::ecam::{self, Ecam};
use crate::pci::{Function, RootComplex, RootPort, Upstream};
use crate::place::Place;
use crate::region::{Device, Effect};
use crate::region::{HostAddress, Region};
use crate::testing::{FakeBacking, FakeRouter, lock};

/// Accesses of one run at most.
const ACCESSES: usize = 48;

const RAM: u64 = 0x10_0000;
const ECAM: u64 = 0xb000_0000;
const BUSES: u64 = 4;
const IOAPIC: u64 = 0xfec0_0000;

/// One run.
pub fn chipset(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let machine = Machine::new();
    for _ in 0..ACCESSES {
        if input.is_empty() {
            break;
        }
        machine.step(&mut input);
    }
    machine.space.remove_devices();
    assert_eq!(machine.listener.starts(), [0], "only RAM stays mapped");
}

struct Machine {
    space: AddressSpace,
    ioapic: Arc<Ioapic>,
    ports: Vec<Arc<RootPort>>,
    listener: Arc<StrictListener>,
}

impl Machine {
    fn new() -> Self {
        let (space, listener) = (AddressSpace::new(), Arc::new(StrictListener::default()));
        let router: Arc<dyn MsiRouter> = FakeRouter::new();
        let ioapic = Ioapic::new(router.clone());
        let port = |number: u8| {
            let function = Endpoint::new(&router, 0x7000_0000_0000 + (u64::from(number) << 32));
            let port = RootPort::new(
                number,
                vec![(0, function as Arc<dyn Function>)],
                Upstream::plain(router.clone()),
            );
            let _none = port.write_config(0x18, &[0, number, number, 0]);
            Arc::new(port)
        };
        let root_ports = vec![port(1), port(2)];
        let root = Arc::new(RootComplex::new(root_ports.clone()));
        let ram = FakeBacking {
            host: HostAddress(0x7f00_0000_0000),
            len_bytes: RAM,
        };
        let memory = |at| Place::Memory(GuestAddress(at));
        let add = |place, region| space.add(place, region).expect("a place of its own");
        add(memory(0), Region::ram(Arc::new(ram)));
        let ecam_len = BUSES * ecam::BYTES_PER_BUS;
        add(
            memory(ECAM),
            Region::trapped(Arc::new(Ecam::new(root.clone())), ecam_len),
        );
        add(memory(IOAPIC), Region::trapped(ioapic.clone(), Ioapic::LEN_BYTES));
        let serial = Serial::new(ioapic.line(4), Box::new(std::io::sink()), Box::new(|| {}));
        let rtc = Rtc::new(Box::new(|| Duration::from_secs(1 << 31)));
        let pci = ResetControl::new(Arc::new(Cam::new(root)));
        let pit = Arc::new(Pit::new(Box::new(|| Duration::from_secs(1))));
        let ports: [(u16, u64, Arc<dyn Device>); 8] = [
            (0x40, Pit::PORTS, pit.clone()),
            (0x61, SystemControl::PORTS, Arc::new(SystemControl::new(pit))),
            (0x64, KeyboardController::PORTS, Arc::new(KeyboardController)),
            (0x70, Rtc::PORTS, Arc::new(rtc)),
            (0x3f8, Serial::PORTS, Arc::new(serial)),
            (0x505, Pvpanic::PORTS, Arc::new(Pvpanic)),
            (0x600, SleepRegisters::PORTS, Arc::new(SleepRegisters)),
            (cam::PORT, cam::PORTS, Arc::new(pci)),
        ];
        for (port, len, device) in ports {
            add(Place::Port(port), Region::trapped(device, len));
        }
        space.add_listener(listener.clone()).expect("it refuses nothing");
        Self {
            space,
            ioapic,
            ports: root_ports,
            listener,
        }
    }

    fn step(&self, input: &mut Input<'_>) {
        let (place, len) = match input.below(12) {
            0 | 1 => (register(input), input.pick(&[4, 4, 1, 2])),
            2 => return self.enable(input),
            3 => (bar_address(input), input.pick(&[4usize, 8, 1, 2, 16])),
            4 | 5 => (port(input), input.pick(&[1, 1, 2, 4])),
            6 => (
                Place::Memory(GuestAddress(IOAPIC + input.pick(&[0u64, 0x10, 0x10, 0x40]))),
                4,
            ),
            7 => return self.ioapic.end_of_interrupt(input.u8()),
            8 => {
                let pin = input.below(u64::from(PINS) + 1) as u8;
                return self.ioapic.line(pin).set_level(input.bool());
            }
            9 => {
                let port = &self.ports[input.below(2) as usize];
                if input.below(8) == 0 {
                    let _none = self.space.apply(port.unplug());
                }
                port.ask_to_unplug();
                return;
            }
            _ => (
                Place::Memory(GuestAddress(input.u64() >> input.below(64))),
                input.below(17) as usize,
            ),
        };
        self.access(place, len, input);
    }

    /// A write, or now and then a read.
    fn access(&self, place: Place, len: usize, input: &mut Input<'_>) {
        if input.below(4) != 0 {
            let data: Vec<u8> = (0..len).map(|_| input.u8()).collect();
            let left = self.space.write_at(place, &data);
            assert!(!matches!(left, Effect::Remap(_)), "moves are applied");
            return;
        }
        let mut data = vec![0; len];
        match place {
            Place::Memory(at) => self.space.read(at, &mut data),
            Place::Port(port) => self.space.read_port(port, &mut data),
        }
    }

    /// Puts the BARs of a function somewhere and turns decoding on.
    fn enable(&self, input: &mut Input<'_>) {
        let config = ECAM + (1 + input.below(2)) * ecam::BYTES_PER_BUS;
        let write = |register: u64, value: u32| {
            let _none = self
                .space
                .write(GuestAddress(config + register), &value.to_le_bytes());
        };
        for register in [0x10u64, 0x18, 0x30] {
            let at = input.pick(&[
                0xc000_0000u32,
                0xc000_4000,
                0,
                0xb000_0000,
                0x8_0000,
                0xfec0_0000,
                0xffff_0000,
            ]);
            write(register, at | u32::from(register == 0x30));
        }
        write(0x14, u32::from(input.u16()));
        write(0x1c, u32::from(input.below(4) == 0));
        write(0x04, u32::from(DECODE));
    }
}

/// A register of a function: mostly those that do something.
fn register(input: &mut Input<'_>) -> Place {
    let bus = input.below(BUSES);
    let devfn = input.pick(&[0u64, 0, 0, 8, 16]) << 12;
    let register = match input.below(3) {
        0 => input.below(0x1000),
        _ => u64::from(input.pick(&[
            0x04u8, 0x10, 0x14, 0x18, 0x1c, 0x30, 0x3e, 0x50, 0x52, 0x54, 0x58, 0x5a, 0x5c, 0x60, 0x70, 0x18,
            0x1a,
        ])),
    };
    Place::Memory(GuestAddress(ECAM + bus * ecam::BYTES_PER_BUS + devfn + register))
}

fn bar_address(input: &mut Input<'_>) -> Place {
    let at = input.pick(&[0xc000_0000u64, 0xc000_4000, 0xffff_0000, 0x1_c000_0000]);
    Place::Memory(GuestAddress(at + input.below(0x400)))
}

fn port(input: &mut Input<'_>) -> Place {
    let base = input.pick(&[
        0x40u16, 0x61, 0x64, 0x70, 0x71, 0x3f8, 0x505, 0x600, 0xcf8, 0xcfc, 0xfffe, 0x1000,
    ]);
    Place::Port(base.saturating_add(u16::from(input.u8() % 8)))
}

/// Hears of the map, and panics where it is not one: an overlap, or a piece that goes without having come.
#[derive(Default)]
struct StrictListener {
    mapped: Mutex<BTreeMap<u64, u64>>,
}

impl StrictListener {
    fn starts(&self) -> Vec<u64> {
        lock(&self.mapped).keys().copied().collect()
    }
}

impl MapListener for StrictListener {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        let (start, end) = (mapping.at.0, mapping.at.0 + mapping.backing.len_bytes());
        let mut mapped = lock(&self.mapped);
        let before = mapped.range(..end).next_back();
        assert!(
            before.is_none_or(|(_, end)| *end <= start),
            "{mapping:x?} overlaps"
        );
        mapped.insert(start, end);
        Ok(())
    }

    fn unmap(&self, mapping: &Mapping) {
        let end = lock(&self.mapped).remove(&mapping.at.0);
        assert_eq!(
            end,
            Some(mapping.at.0 + mapping.backing.len_bytes()),
            "{mapping:x?}"
        );
    }
}

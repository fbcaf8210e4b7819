//! What the log tells of a guest's accesses: each of them at the level `trace`, which is `-vvv`, and none below.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};
use strait_devices::address_space::AddressSpace;
use strait_devices::region::Region;
use strait_devices::{Device, Effect, GuestAddress, Place};

/// Keeps every line. The log belongs to the process, so this test is the only one of its program.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl Lines {
    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Registers that all hold 0x21.
struct Registers;

impl Device for Registers {
    fn name(&self) -> &str {
        "registers"
    }

    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0x21);
    }

    fn write(&self, _: u64, _: &[u8]) -> Effect {
        Effect::None
    }
}

#[test]
fn each_access_is_told_with_its_place_its_device_and_its_value_and_only_when_asked_for() {
    log::set_logger(&LINES).expect("the first");
    let space = AddressSpace::new();
    let registers = || Region::trapped(Arc::new(Registers), 0x10);
    for place in [Place::Memory(GuestAddress(0x1000)), Place::Port(0x60)] {
        space.add(place, registers()).expect("free");
    }
    let access = || {
        let _ = space.write(GuestAddress(0x1008), &[7, 0, 0, 0x80]);
        let _ = space.write_port(0x64, &[0xfe]);
        space.read(GuestAddress(0x1000), &mut [0; 2]);
        space.read_port(0x80, &mut [0]);
    };
    log::set_max_level(LevelFilter::Debug);
    access();
    assert_eq!(LINES.take(), [""; 0]);
    log::set_max_level(LevelFilter::Trace);
    access();
    assert_eq!(
        LINES.take(),
        [
            "0x1008, registers at 0x8: written 0x80000007",
            "port 0x64, registers at 0x4: written 0xfe",
            "0x1000, registers at 0x0: read 0x2121",
            "port 0x80, nobody: read 0xff",
        ]
    );
}

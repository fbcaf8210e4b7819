//! Accesses of any place, shape and value; a second machine takes the same with each quadword in halves.

use super::input::Input;
use super::machine::{Machine, PAGE};
use crate::Device;
use crate::testing::Registers;

/// Registers that no write changes: version, both capabilities, queue head and what is between registers.
const READ_ONLY: [u64; 8] = [0x00, 0x08, 0x10, 0x48, 0x50, 0x58, 0x100, 0xff8];
/// Quadwords whose halves do something when they are written: a write in halves is not one write.
const COMMANDS: [u64; 6] = [0x18, 0x28, 0x30, 0x38, 0xa0, 0xf8];
/// Accesses of one run at most.
const ACCESSES: usize = 32;

/// One run.
pub fn registers(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let machine = Machine::new(&mut input);
    let halves = Machine::new(&mut Input::new(bytes));
    let fixed = READ_ONLY.map(|at| machine.vtd.read64(at));
    for _ in 0..ACCESSES {
        if input.is_empty() {
            break;
        }
        access(&machine, &halves, &mut input);
    }
    assert_eq!(READ_ONLY.map(|at| machine.vtd.read64(at)), fixed);
    assert_eq!(machine.vtd.read32(0x18), 0, "GCMD reads as zero");
    for at in (0..0x300).step_by(8) {
        let (low, high) = (machine.vtd.read32(at), machine.vtd.read32(at + 4));
        assert_eq!(
            machine.vtd.read64(at),
            u64::from(low) | u64::from(high) << 32,
            "{at:#x}"
        );
        assert_eq!(machine.vtd.read64(at), halves.vtd.read64(at), "{at:#x}");
    }
    check_reset(&machine, &Machine::new(&mut Input::new(bytes)));
}

fn access(machine: &Machine, halves: &Machine, input: &mut Input<'_>) {
    let at = match input.below(8) {
        0 => u64::from(input.u16()) % PAGE,
        1 => input.pick(&[0x220u64, 0x228, 0x298, 0x2a0, 0x22c]),
        _ => input.below(0x100 / 4) * 4,
    };
    let len = match input.below(8) {
        0 => input.below(17) as usize,
        1..=4 => 8,
        _ => 4,
    };
    let len = len.min((PAGE - at) as usize);
    let value: Vec<u8> = (0..len).map(|_| input.u8()).collect();
    let before = machine.router.sent().len();
    let _none = machine.vtd.write(at, &value);
    assert!(
        machine.router.sent().len() <= before + 2,
        "one write, at most a completion and a fault"
    );
    if len == 8 && at.is_multiple_of(8) && !COMMANDS.contains(&at) {
        let (low, high) = value.split_at(4);
        // The upper half first: what a register does, its lower half does.
        let _none = halves.vtd.write(at + 4, high);
        let _none = halves.vtd.write(at, low);
    } else {
        let _none = halves.vtd.write(at, &value);
    }
    let mut data = vec![0xa5; len];
    machine.vtd.read(at, &mut data);
    let is_plain = matches!(len, 4 | 8) && at.is_multiple_of(len as u64);
    assert!(
        is_plain || data.iter().all(|byte| *byte == 0),
        "{at:#x}, {len} bytes"
    );
}

fn check_reset(machine: &Machine, fresh: &Machine) {
    machine.vtd.reset();
    for at in (0..0x300).step_by(8) {
        assert_eq!(
            machine.vtd.read64(at),
            fresh.vtd.read64(at),
            "{at:#x} after a reset"
        );
    }
}

//! A guest that writes any register and any ring, edits tables while they are walked, and obeys no rule; in
//! the end it behaves, and the unit must be as good as new.

use super::input::Input;
use super::machine::{
    CONTEXT_GLOBAL, CONTEXTS, IOTLB_GLOBAL, IQA, IQT, IRT, Machine, PAGE, RAM, ROOT, RTADDR, SRTP, STATUS,
    TABLE, TE,
};
use super::reference::{context, reachable};
use super::tables::{address, entry};
use crate::dma::{Access, Iova, RequesterId};
use crate::iommu::vtd::{RemappingRouter, Source};
use crate::irq::{MsiMessage, MsiRouter};
use crate::testing::Registers;

/// Operations of one run at most.
const OPERATIONS: usize = 24;
/// Table entries written at most, now or during a walk.
const EDITS: usize = 16;

/// Descriptors of a flood: a ring of one page has room for one less than 256.
const FLOOD: usize = 250;
/// Routes at a time when a flood comes.
const ROUTES: usize = 64;
const IRE: u32 = 1 << 25;
const SIRTP: u32 = 1 << 24;

/// One run.
pub fn queue(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new(&mut input);
    if input.bool() {
        start(&machine);
    }
    let mut edits = 0;
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        step(&mut machine, &mut input, &mut edits);
    }
    check(&machine);
}

fn start(machine: &Machine) {
    machine.ram.poke(ROOT + 16, CONTEXTS | 1);
    for index in 0..2 {
        machine.ram.poke(CONTEXTS + index * 8 * 16, TABLE | 1);
        machine.ram.poke(CONTEXTS + index * 8 * 16 + 8, 5 << 8 | 1);
    }
    machine.restart_queue();
    machine.vtd.write64(RTADDR, ROOT);
    machine.command(SRTP);
    machine.command(TE);
}

fn step(machine: &mut Machine, input: &mut Input<'_>, edits: &mut usize) {
    match input.below(13) {
        0..=2 => submit(machine, input),
        3 | 4 => {
            *edits += 1;
            if *edits <= EDITS {
                machine.ram.poke(word(input), entry(input));
            }
        }
        5 => {
            *edits += 1;
            if *edits <= EDITS {
                let after = input.below(0x400);
                machine.ram.poke_later(after, word(input), entry(input));
            }
        }
        6 => write_register(machine, input),
        7 => point(machine, input),
        8 => command(machine, input),
        9 => {
            let index = input.below(machine.domains.len() as u64) as usize;
            machine.set_bus_master(index, input.bool());
        }
        10 => machine.set_bar(input.bool()),
        11 => flood(machine, input),
        _ => {
            let id = RequesterId(input.u16());
            let access = Access::from_bits_truncate(input.u8());
            machine.vtd.translate(id, Iova(address(input)), access);
        }
    }
}

/// Any word of the tables' pages, and of root and contexts.
fn word(input: &mut Input<'_>) -> u64 {
    match input.below(4) {
        0 => ROOT + input.below(2 * PAGE / 8) * 8,
        _ => TABLE + input.below((RAM - TABLE) / 8) * 8,
    }
}

/// A descriptor where the ring says the tail is, if that is memory, and the tail behind it.
fn submit(machine: &Machine, input: &mut Input<'_>) {
    let ring = machine.vtd.read64(IQA);
    let tail = machine.vtd.read64(IQT);
    let [low, high] = descriptor(input);
    let at = (ring & !0xfff).saturating_add(tail);
    machine.ram.poke(at, low);
    machine.ram.poke(at.saturating_add(8), high);
    let len = PAGE << (ring & 7);
    machine.vtd.write64(IQT, (tail + 16) % len);
}

/// A few descriptors over and over behind one write of the tail, with waits that rewrite the tables which the next
/// descriptors are about, and with many routes.
fn flood(machine: &Machine, input: &mut Input<'_>) {
    let function = Source::Function(machine.requesters[0].clone());
    let router = RemappingRouter::new(machine.vtd.clone(), function);
    let routes: Vec<_> = (0..ROUTES).filter_map(|_| router.route().ok()).collect();
    if input.bool() {
        machine.vtd.write64(0xb8, IRT | 7);
        machine.command(SIRTP);
        machine.command(IRE);
    }
    for route in &routes {
        let address = 0xfee0_0010 | input.below(2) << 5;
        let message = MsiMessage { address, data: 0 };
        route.set(Some(message));
        route.commit().expect("a fake route takes every message");
    }
    machine.restart_queue();
    let mut pattern = toggle(input);
    pattern.extend((0..input.below(4)).map(|_| flooding(input)));
    let count = machine.fill_ring(pattern.iter().copied().cycle().take(FLOOD));
    machine.vtd.write64(IQT, 16 * count);
}

/// An entry that comes and goes, with the invalidation that it needs after either.
fn toggle(input: &mut Input<'_>) -> Vec<[u64; 2]> {
    let (at, on, invalidation) = input.pick(&[
        (IRT, 1, [4, 0]),
        (CONTEXTS, 9, CONTEXT_GLOBAL),
        (TABLE, 0x4000_0083, IOTLB_GLOBAL),
    ]);
    let status = |value: u64| [value << 32 | 1 << 5 | 5, at];
    vec![status(0), invalidation, status(on), invalidation]
}

fn flooding(input: &mut Input<'_>) -> [u64; 2] {
    let at = match input.below(4) {
        0 => CONTEXTS + input.below(2) * 8 * 16,
        1 => ROOT + 16,
        2 => IRT + input.below(2) * 16,
        _ => TABLE + input.below(8) * 8,
    };
    match input.below(8) {
        0..=3 => {
            let value = input.pick(&[0, 1, 9, TABLE | 1, TABLE | 3, CONTEXTS | 1, 0x4000_0083]);
            [value << 32 | 1 << 5 | 5, at]
        }
        4 => CONTEXT_GLOBAL,
        5 => IOTLB_GLOBAL,
        6 => [4, 0],
        _ => descriptor(input),
    }
}

fn descriptor(input: &mut Input<'_>) -> [u64; 2] {
    let domain = 4 + input.below(4);
    let granularity = input.below(4) << 4;
    match input.below(8) {
        0 => [u64::from(input.u16()) << 32 | domain << 16 | granularity | 1, 0],
        1..=3 => {
            let mask = input.pick(&[0u64, 0, 1, 9, 18, 19, 63]);
            let page = address(input) & !0xfff;
            [domain << 16 | granularity | 2, page | mask]
        }
        4 => [
            u64::from(input.u16()) << 32 | input.below(32) << 27 | granularity & 0x10 | 4,
            0,
        ],
        5 | 6 => {
            let status = input.pick(&[
                STATUS,
                STATUS + 4,
                RAM - 4,
                0xfed9_0000,
                0xfd00_0000,
                u64::MAX - 3,
            ]);
            let kind = input.pick(&[1u64 << 5, 1 << 4, 3 << 4, 1 << 6, 0]);
            [0xdead_beef << 32 | kind | 5, status]
        }
        _ => [input.u64(), input.u64()],
    }
}

fn write_register(machine: &Machine, input: &mut Input<'_>) {
    let at = input.below(0x300 / 4) * 4;
    let value = input.u64();
    match input.bool() {
        true => machine.vtd.write64(at, value),
        false => machine.vtd.write32(at, value as u32),
    }
}

/// Root table, ring or tail somewhere else.
fn point(machine: &Machine, input: &mut Input<'_>) {
    let register = input.pick(&[RTADDR, IQA, IQT, 0xb8]);
    let frame = match input.below(3) {
        0 => input.below(32) * PAGE,
        1 => input.u64(),
        _ => input.pick(&[!0xfffu64, 1 << 47, 0xfed9_0000, RAM - PAGE]),
    };
    machine.vtd.write64(register, frame | input.below(8));
}

/// Any of the command bits, mostly besides those that last.
fn command(machine: &Machine, input: &mut Input<'_>) {
    let bits = u32::from(input.u16()) << 16;
    match input.bool() {
        true => machine.command(bits),
        false => machine.vtd.write32(super::machine::GCMD, bits),
    }
}

/// A guest that behaves finds a unit that does.
fn check(machine: &Machine) {
    machine.ram.stop_edits();
    machine.vtd.write64(RTADDR, machine.vtd.read64(RTADDR) & !0xfff);
    machine.command(SRTP);
    machine.invalidate(&[CONTEXT_GLOBAL, IOTLB_GLOBAL]);
    if machine.vtd.read32(super::machine::GSTS) & TE == 0 {
        return;
    }
    let root = machine.vtd.read64(RTADDR);
    for (requester, domain) in machine.requesters.iter().zip(&machine.domains) {
        let (way, _) = context(machine, root, requester.id().0);
        let actual = domain.pieces();
        if let Some(expected) = reachable(machine, way, &(0..u64::MAX)) {
            let is_idle = way == super::reference::Way::Passes && actual.is_empty();
            assert!(
                is_idle || actual == expected,
                "{way:x?}: {actual:x?}, not {expected:x?}"
            );
        }
    }
}

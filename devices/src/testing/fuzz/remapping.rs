//! Interrupts of functions and of the I/O APIC under a table that changes, beside a reference (§5.1, §9.9).

use std::sync::Arc;

use super::input::Input;
use super::machine::{FSTS, GSTS, IRT, Machine, PAGE, RAM};
use crate::dma::RequesterId;
use crate::iommu::vtd::{RemappingRouter, Source};
use crate::irq::{MsiMessage, MsiRoute, MsiRouter};
use crate::testing::{FakeRoute, Registers};

const IRE: u32 = 1 << 25;
const SIRTP: u32 = 1 << 24;
const CFI: u32 = 1 << 23;
/// Operations of one run at most.
const OPERATIONS: usize = 24;
/// Who the I/O APIC is.
const IOAPIC: u16 = 0xff00;

/// One run.
pub fn remapping(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut guest = Guest::new(&mut input);
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
        guest.check();
    }
}

/// A fault reason, whether the entry asks for silence about it, and who sent the interrupt.
type Blocked = (u8, bool, u16);

/// A message that stands: of a route or of a pin.
struct Way {
    source: Source,
    end: End,
    wanted: Option<MsiMessage>,
    sent: Option<MsiMessage>,
    blocked: Option<Blocked>,
}

enum End {
    Route(Arc<dyn MsiRoute>, Arc<FakeRoute>),
    Pin(u8),
}

struct Guest {
    machine: Machine,
    sources: Vec<Source>,
    ways: Vec<Way>,
    /// IRTA as it was when it was latched.
    latched: u64,
}

impl Guest {
    fn new(input: &mut Input<'_>) -> Self {
        let machine = Machine::new(input);
        machine.restart_queue();
        let functions = machine.requesters.iter().cloned().map(Source::Function);
        let sources: Vec<_> = [Source::Ioapic(RequesterId(IOAPIC))]
            .into_iter()
            .chain(functions)
            .collect();
        let mut guest = Self {
            machine,
            sources,
            ways: Vec::new(),
            latched: 0,
        };
        if input.bool() {
            guest
                .machine
                .vtd
                .write64(0xb8, IRT | u64::from(input.u8() & 0xf) | 1 << 11);
            guest.command(SIRTP);
            guest.command(IRE);
        }
        guest
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0..=2 => self.edit(input),
            3 | 4 => self.send(input),
            5 | 6 => self.set_way(input),
            7 | 8 => self.invalidate(input),
            9 => self.switch(input),
            10 => self.point(input),
            _ => match input.below(3) {
                0 => {
                    self.machine.renumber(0, input.pick(&[1, 0, 2, 255]));
                    self.translate_all();
                }
                _ => self.report(input),
            },
        }
    }

    fn edit(&self, input: &mut Input<'_>) {
        let at = IRT + input.below(16) * 16;
        let (low, high) = match input.below(4) {
            0 => (input.u64(), input.u64()),
            _ => (
                u64::from(input.u16()) << 32 | u64::from(input.u8()) << 16 | u64::from(input.u8()) | 1,
                input.below(16) << 16 | u64::from(input.pick(&[0x100u16, 0x101, 0x108, 0xff00, 0x001])),
            ),
        };
        self.machine.ram.poke(at, low);
        self.machine.ram.poke(at + 8, high);
    }

    fn send(&self, input: &mut Input<'_>) {
        let source = self.source(input);
        let message = message(input);
        self.clear_faults();
        let before = self.machine.router.sent().len();
        let router = RemappingRouter::new(self.machine.vtd.clone(), source.clone());
        router.send(message);
        let sent = self.machine.router.sent().get(before).copied();
        match self.expected(&source, message) {
            Ok(expected) => assert_eq!(sent, Some(expected), "{message:x?}"),
            Err(blocked) => {
                assert_eq!(sent, None, "{message:x?}");
                self.check_fault(Some(blocked));
            }
        }
    }

    fn source(&self, input: &mut Input<'_>) -> Source {
        self.sources[input.below(self.sources.len() as u64) as usize].clone()
    }

    /// A vector or a pin is masked, or unmasked with a message.
    fn set_way(&mut self, input: &mut Input<'_>) {
        let index = input.below(4) as usize;
        while self.ways.len() <= index {
            let way = self.new_way(input);
            self.ways.push(way);
        }
        let wanted = (input.below(4) != 0).then(|| message(input));
        self.ways[index].wanted = wanted;
        match &self.ways[index].end {
            End::Route(route, _) => {
                route.set(wanted);
                route.commit().expect("a fake route takes every message");
            }
            End::Pin(pin) => {
                let router = RemappingRouter::new(self.machine.vtd.clone(), self.ways[index].source.clone());
                router.set_pin(*pin, wanted);
                router.commit().expect("a fake router takes every message");
            }
        }
        self.translate(index);
    }

    fn new_way(&self, input: &mut Input<'_>) -> Way {
        let is_pin = input.bool();
        let source = if is_pin {
            self.sources[0].clone()
        } else {
            self.source(input)
        };
        let end = match is_pin {
            // A pin that another way has would answer for both.
            true => End::Pin(self.ways.len() as u8),
            false => {
                let router = RemappingRouter::new(self.machine.vtd.clone(), source.clone());
                let route = router.route().expect("a fake router has routes");
                let behind = self.machine.router.routes().last().expect("just made").clone();
                End::Route(route, behind)
            }
        };
        Way {
            source,
            end,
            wanted: None,
            sent: None,
            blocked: None,
        }
    }

    fn invalidate(&mut self, input: &mut Input<'_>) {
        let (index, mask) = (
            u64::from(input.u16()) & input.pick(&[0xf, 0xffff]),
            input.below(32),
        );
        if input.below(4) == 0 {
            self.machine.invalidate(&[[4, 0]]);
            return self.translate_all();
        }
        self.machine
            .invalidate(&[[index << 32 | mask << 27 | 1 << 4 | 4, 0]]);
        for way in 0..self.ways.len() {
            let named = self.ways[way].wanted.and_then(|message| handle(message).ok());
            if named.is_some_and(|named| u64::from(named) >> mask.min(16) == index >> mask.min(16)) {
                self.translate(way);
            }
        }
    }

    fn switch(&mut self, input: &mut Input<'_>) {
        let bits = [IRE, CFI, SIRTP].map(|bit| if input.bool() { bit } else { 0 });
        self.command(bits.iter().sum());
    }

    /// GCMD as a whole, but for the queue, which stays on.
    fn command(&mut self, bits: u32) {
        let before = self.machine.vtd.read32(GSTS);
        self.machine
            .vtd
            .write32(super::machine::GCMD, bits | super::machine::QIE);
        if bits & SIRTP != 0 {
            self.latched = self.machine.vtd.read64(0xb8);
        }
        let after = self.machine.vtd.read32(GSTS);
        if bits & SIRTP != 0 || (before ^ after) & (IRE | CFI) != 0 {
            self.translate_all();
        }
    }

    fn point(&mut self, input: &mut Input<'_>) {
        let frame = match input.below(3) {
            0 => IRT,
            1 => input.pick(&[RAM - PAGE, !0xfff, 0xfed9_0000]),
            _ => input.u64(),
        };
        self.machine
            .vtd
            .write64(0xb8, frame & !0xfff | u64::from(input.u16() & 0xfff));
        if input.bool() {
            self.command(SIRTP | IRE);
        }
    }

    /// An interrupt arrives on a route: if it is blocked, that is a fault.
    fn report(&self, input: &mut Input<'_>) {
        let index = input.below(4) as usize;
        let Some(way) = self.ways.get(index) else {
            return;
        };
        let End::Route(_, behind) = &way.end else {
            return;
        };
        let behind = behind.clone();
        let blocked = way.blocked;
        self.clear_faults();
        behind.set_pending(true);
        self.machine.vtd.report_blocked();
        behind.set_pending(false);
        self.check_fault(blocked);
    }

    fn clear_faults(&self) {
        for record in 0..8 {
            self.machine.vtd.write32(0x22c + 16 * record, 1 << 31);
        }
        self.machine.vtd.write32(FSTS, 1);
    }

    fn check_fault(&self, blocked: Option<Blocked>) {
        let records: Vec<_> = (0..8)
            .map(|record| self.machine.vtd.read64(0x228 + 16 * record))
            .filter(|high| high >> 63 != 0)
            .map(|high| ((high >> 32) as u8, high as u16))
            .collect();
        let loud = blocked.filter(|(reason, silent, _)| !(*silent && matches!(reason, 0x22 | 0x24 | 0x26)));
        let expected: Vec<_> = loud.map(|(reason, _, id)| (reason, id)).into_iter().collect();
        assert_eq!(records, expected);
    }

    fn translate_all(&mut self) {
        for index in 0..self.ways.len() {
            self.translate(index);
        }
    }

    fn translate(&mut self, index: usize) {
        let way = &self.ways[index];
        let (sent, blocked) = match way.wanted.map(|message| self.expected(&way.source, message)) {
            None => (None, None),
            Some(Ok(message)) => (Some(message), None),
            Some(Err(blocked)) => (None, Some(blocked)),
        };
        (self.ways[index].sent, self.ways[index].blocked) = (sent, blocked);
    }

    /// What the kernel was told of each way.
    fn check(&self) {
        let pins = self.machine.router.pins();
        for way in &self.ways {
            let told = match &way.end {
                End::Route(_, behind) => behind.message(),
                End::Pin(pin) => pins
                    .iter()
                    .rev()
                    .find(|(number, _)| number == pin)
                    .and_then(|(_, message)| *message),
            };
            assert_eq!(told, way.sent, "{:x?} of {:?}", way.wanted, way.source);
        }
    }

    fn expected(&self, source: &Source, message: MsiMessage) -> Result<MsiMessage, Blocked> {
        let status = self.machine.vtd.read32(GSTS);
        if status & IRE == 0 {
            return Ok(message);
        }
        let is_extended = self.latched >> 11 & 1 != 0 && self.machine.config.extended_interrupts;
        let index = match handle(message) {
            Err(0x25) if status & CFI != 0 && !is_extended => return Ok(message),
            other => other.map_err(|reason| (reason, false, id(source)))?,
        };
        if index >= 1 << ((self.latched & 0xf) + 1) {
            return Err((0x21, false, id(source)));
        }
        let at = (self.latched & !0xfff).saturating_add(u64::from(index) * 16);
        let quads = (
            self.machine.ram.peek(at),
            self.machine.ram.peek(at.saturating_add(8)),
        );
        let (Some(low), Some(high)) = quads else {
            return Err((0x23, false, id(source)));
        };
        let blocked = |reason| Err((reason, low & 2 != 0, id(source)));
        if low & 1 == 0 {
            return blocked(0x22);
        }
        if low & 0xff00_f000 != 0 || high >> 20 != 0 {
            return blocked(0x24);
        }
        let (id, named) = (id(source), high as u16);
        let ignored = [0, 4, 6, 7][(high >> 16 & 3) as usize];
        let is_function = matches!(source, Source::Function(_));
        match high >> 18 & 3 {
            3 if is_function => return blocked(0x24),
            1 if is_function && (id | ignored) != (named | ignored) => return blocked(0x26),
            2 if is_function && !(named >> 8..=named & 0xff).contains(&(id >> 8)) => return blocked(0x26),
            _ => {}
        }
        let destination = if is_extended { low >> 32 } else { low >> 40 & 0xff };
        Ok(MsiMessage {
            address: (destination & !0xff) << 32 | 0xfee0_0000 | (destination & 0xff) << 12 | low & 0xc,
            data: (low >> 16 & 0xff | (low >> 5 & 7) << 8 | 1 << 14 | (low >> 4 & 1) << 15) as u32,
        })
    }
}

fn id(source: &Source) -> u16 {
    match source {
        Source::Ioapic(id) => id.0,
        Source::Function(requester) => requester.id().0,
    }
}

/// The index a message names, or the reason why it names none.
fn handle(message: MsiMessage) -> Result<u32, u8> {
    let address = message.address;
    if address >> 20 != 0xfee {
        return Err(0x20);
    }
    if address & 0x10 == 0 {
        return Err(0x25);
    }
    let handle = (address >> 5 & 0x7fff | (address >> 2 & 1) << 15) as u32;
    match address & 8 != 0 {
        false => Ok(handle),
        true if message.data >> 16 != 0 => Err(0x20),
        true => Ok(handle + message.data),
    }
}

/// Mostly a handle that the table may have.
fn message(input: &mut Input<'_>) -> MsiMessage {
    let handle = u64::from(input.u16()) & input.pick(&[0xf, 0xf, 0xf, 0xffff]);
    let address = 0xfee0_0000 | (handle & 0x7fff) << 5 | handle >> 15 << 2;
    match input.below(8) {
        0..=3 => MsiMessage {
            address: address | 0x10,
            data: 0,
        },
        4 | 5 => MsiMessage {
            address: address | 0x18,
            data: input.u32() & input.pick(&[3, 0xffff, 0xffff_ffff]),
        },
        6 => MsiMessage {
            address,
            data: input.u32(),
        },
        _ => MsiMessage {
            address: input.u64() >> input.below(64),
            data: input.u32(),
        },
    }
}

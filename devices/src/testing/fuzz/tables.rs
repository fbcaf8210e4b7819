//! A guest that edits its tables and invalidates what it edited, now and then forgetting; after each
//! invalidation what it covers is as the reference says.

use std::ops::Range;

use super::input::Input;
use super::machine::{
    BAR, CONTEXT_GLOBAL, CONTEXTS, GCMD, IOTLB_GLOBAL, Machine, PAGE, RAM, ROOT, RTADDR, SRTP, TABLE, TE,
};
use super::reference::{Way, context, is_part, page, reachable, request, within};
use crate::dma::{Access, Iova, RequesterId};
use crate::testing::Registers;

/// Operations of one run at most.
const OPERATIONS: usize = 16;
/// Entries written at most: a table that points at itself in `n` places has `n` to the fourth pages.
const EDITS: usize = 16;

/// One run.
pub fn tables(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut guest = Guest::new(&mut input);
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
    }
    guest.settle();
    for _ in 0..4 {
        guest.check_request(&mut input);
    }
    check_end(&mut guest.machine);
}

/// Turns translation off and everything back: nothing stays mapped.
fn check_end(machine: &mut Machine) {
    machine.vtd.reset();
    for domain in &machine.domains {
        assert_eq!(domain.pieces(), []);
    }
}

struct Guest {
    machine: Machine,
    /// What each device was said to do when its context was last invalidated; nothing while that is open.
    latched: Vec<Option<(Way, u16)>>,
    is_on: bool,
    refuses: bool,
    /// Something was refused and not tried again.
    is_partial: bool,
    edits: usize,
}

impl Guest {
    fn new(input: &mut Input<'_>) -> Self {
        let machine = Machine::new(input);
        let levels = if machine.config.width.bits() == 39 { 3 } else { 4 };
        for bus in 0..3 {
            machine.ram.poke(ROOT + bus * 16, CONTEXTS | 1);
        }
        for index in 0..machine.domains.len() as u64 {
            let entry = CONTEXTS + index * 8 * 16;
            machine.ram.poke(entry, (TABLE + index * PAGE) | 1);
            machine.ram.poke(entry + 8, (5 + index) << 8 | (levels - 2));
        }
        machine.restart_queue();
        machine.vtd.write64(RTADDR, ROOT);
        machine.command(SRTP);
        machine.command(TE);
        let mut guest = Self {
            latched: vec![None; machine.domains.len()],
            machine,
            is_on: true,
            refuses: false,
            is_partial: false,
            edits: 0,
        };
        guest.latch_all();
        guest
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=5 => self.edit_table(input),
            6..=8 => self.invalidate_pages(input),
            9 => self.invalidate_all(input),
            10 => self.edit_context(input),
            11 => self.invalidate_contexts(input),
            12 => self.set_bus_master(input),
            13 => self.move_bar(input.bool()),
            14 => self.set_refuses(input.bool()),
            _ => match input.below(4) {
                0 => self.switch(input.bool()),
                1 => self.renumber(input),
                2 => self.edit_during_walk(input),
                _ => self.invalidate_pages(input),
            },
        }
    }

    /// An entry in one of the tables, which may also be one above.
    fn edit_table(&mut self, input: &mut Input<'_>) {
        if self.edits < EDITS {
            self.edits += 1;
            let at = TABLE + input.below((RAM - TABLE) / 8) * 8;
            self.machine.ram.poke(at, entry(input));
        }
    }

    fn edit_during_walk(&mut self, input: &mut Input<'_>) {
        if self.edits < EDITS {
            self.edits += 1;
            let at = TABLE + input.below((RAM - TABLE) / 8) * 8;
            let after = input.below(0x1000);
            self.machine.ram.poke_later(after, at, entry(input));
            self.machine.invalidate(&[IOTLB_GLOBAL]);
            self.machine.ram.stop_edits();
        }
    }

    fn edit_context(&mut self, input: &mut Input<'_>) {
        let entry = CONTEXTS + input.below(16) * 8 * 16;
        let table = input.below(16) * PAGE;
        let low = table | u64::from(input.pick(&[1u8, 1, 1, 0, 3, 9, 9, 5, 0x11]));
        let width = u64::from(input.pick(&[2u8, 1, 2, 1, 0, 3, 7]));
        let (at, value) = match input.bool() {
            true => (entry, low),
            false => (entry + 8, (5 + input.below(4)) << 8 | width),
        };
        self.machine.ram.poke(at, value);
    }

    fn invalidate_pages(&mut self, input: &mut Input<'_>) {
        let mask = input.pick(&[0u8, 0, 0, 1, 2, 9, 9, 18, 4]);
        let len = PAGE << mask;
        let start = page(address(input)) & !(len - 1);
        let domain = 5 + input.below(4);
        self.machine
            .invalidate(&[[domain << 16 | 3 << 4 | 2, start | u64::from(mask)]]);
        for index in 0..self.latched.len() {
            if self.latched[index].is_some_and(|(way, of)| u64::from(of) == domain && walks(way)) {
                self.check(index, start..start.saturating_add(len));
            }
        }
    }

    fn invalidate_all(&mut self, input: &mut Input<'_>) {
        let domain = 5 + input.below(4);
        if input.bool() {
            self.machine.invalidate(&[[domain << 16 | 2 << 4 | 2, 0]]);
            for index in 0..self.latched.len() {
                if self.latched[index].is_some_and(|(way, of)| u64::from(of) == domain && walks(way)) {
                    self.check(index, 0..u64::MAX);
                }
            }
            return;
        }
        self.machine.invalidate(&[IOTLB_GLOBAL]);
        self.is_partial &= self.refuses;
        for index in 0..self.latched.len() {
            self.check(index, 0..u64::MAX);
        }
    }

    fn invalidate_contexts(&mut self, input: &mut Input<'_>) {
        if input.bool() {
            let index = input.below(self.latched.len() as u64) as usize;
            let id = u64::from(self.machine.requesters[index].id().0);
            self.machine.invalidate(&[[id << 32 | 3 << 4 | 1, 0]]);
            self.latch(index);
            return;
        }
        self.machine.invalidate(&[CONTEXT_GLOBAL]);
        self.latch_all();
    }

    fn set_bus_master(&mut self, input: &mut Input<'_>) {
        let index = input.below(self.latched.len() as u64) as usize;
        self.machine.set_bus_master(index, input.bool());
        self.latch(index);
    }

    /// When the BAR is gone, nothing of it is reachable, whatever the tables say.
    fn move_bar(&mut self, present: bool) {
        self.machine.set_bar(present);
        let is_bar = |host: u64| (BAR.host..BAR.host + BAR.len).contains(&host);
        for domain in &self.machine.domains {
            let is_stale = !present && domain.pieces().iter().any(|piece| is_bar(piece.host));
            assert!(!is_stale, "a BAR that is gone stays reachable");
        }
    }

    fn set_refuses(&mut self, refuses: bool) {
        self.refuses = refuses;
        self.is_partial |= refuses;
        for domain in &self.machine.domains {
            domain.set_refuses(refuses);
        }
    }

    fn switch(&mut self, on: bool) {
        let others = self.machine.lasting() & !TE;
        let before = std::mem::replace(&mut self.is_on, on);
        self.machine.vtd.write32(GCMD, others | if on { TE } else { 0 });
        if before != on {
            self.latch_all();
        }
    }

    fn renumber(&mut self, input: &mut Input<'_>) {
        let index = input.below(self.latched.len() as u64) as usize;
        let bus = input.pick(&[1, 2, 0, 7]);
        let is_new = self.machine.requesters[index].id().0 >> 8 != u16::from(bus);
        self.machine.renumber(index, bus);
        if is_new {
            self.latch(index);
        }
    }

    fn latch_all(&mut self) {
        for index in 0..self.latched.len() {
            self.latch(index);
        }
    }

    fn latch(&mut self, index: usize) {
        let id = self.machine.requesters[index].id().0;
        self.latched[index] = Some(match self.is_on {
            true => context(&self.machine, ROOT, id),
            false => (Way::Passes, 0),
        });
    }

    /// In the range a device reaches what its tables say, no less, and never more.
    fn check(&self, index: usize, range: Range<u64>) {
        let Some((way, _)) = self.latched[index] else {
            return;
        };
        let Some(expected) = reachable(&self.machine, way, &range) else {
            return;
        };
        let actual = within(&self.machine.domains[index].pieces(), &range);
        if self.is_partial {
            assert!(
                is_part(&actual, &expected),
                "device {index}: {actual:x?} is not in {expected:x?}"
            );
            return;
        }
        // A device that is no bus master needs no memory, and keeps what it had.
        let is_idle = way == Way::Passes && actual.is_empty();
        assert!(
            is_idle || actual == expected,
            "device {index} in {range:x?}: {actual:x?}, not {expected:x?}"
        );
    }

    /// Everything invalidated, nothing refused: all is as the tables say.
    fn settle(&mut self) {
        self.set_refuses(false);
        self.machine.invalidate(&[CONTEXT_GLOBAL, IOTLB_GLOBAL]);
        self.is_partial = false;
        self.latch_all();
        for index in 0..self.latched.len() {
            self.check(index, 0..u64::MAX);
        }
    }

    fn check_request(&self, input: &mut Input<'_>) {
        let (iova, access) = (address(input), Access::from_bits_truncate(1 + input.u8() % 3));
        let id = self.machine.requesters[0].id();
        let expected = match self.is_on {
            true => request(&self.machine, context(&self.machine, ROOT, id.0).0, iova, access),
            false => Some(iova),
        };
        let actual = self.machine.vtd.translate(RequesterId(id.0), Iova(iova), access);
        assert_eq!(actual.map(|address| address.0), expected, "{iova:#x} {access:?}");
    }
}

fn walks(way: Way) -> bool {
    matches!(way, Way::Walks { .. })
}

/// A second-stage entry: mostly a table or a page, at times one that is wrong.
pub(super) fn entry(input: &mut Input<'_>) -> u64 {
    let frame = match input.below(8) {
        0..=3 => input.below(RAM / PAGE) * PAGE,
        4 => 0x20_0000 * input.below(4) + input.pick(&[0, 0, 0, PAGE]),
        5 => 0x4000_0000 * input.below(4),
        6 => input.pick(&[
            BAR.at,
            BAR.at + 3 * PAGE,
            0xfee0_0000,
            0xfedf_f000,
            0xfd00_0000 - 0x10_0000,
        ]),
        _ => input.pick(&[
            1 << 39,
            1 << 48,
            0x000f_ffff_ffff_f000,
            0x7fff_f000,
            0x40_0000 - PAGE,
        ]),
    };
    let rights = u64::from(input.pick(&[3u8, 3, 3, 1, 2, 0]));
    let extra = input.pick(&[0, 0, 0, 1 << 7, 1 << 7, 1 << 11, 1 << 62, 1 << 63, 0x7c, 1 << 52]);
    frame | rights | extra
}

/// A device's address: mostly where the first entries of the tables are.
pub(super) fn address(input: &mut Input<'_>) -> u64 {
    let base = match input.below(8) {
        0..=2 => 0,
        3 => 0x20_0000 * input.below(512),
        4 => 0x4000_0000 * input.below(512),
        5 => (1 << 39) * input.below(512),
        6 => 0xfedf_0000,
        _ => input.u64() >> input.below(64),
    };
    base.wrapping_add(input.below(512) * PAGE + input.below(3) * 0x7ff)
}

use std::sync::Arc;

use super::guest::*;
use crate::dma::{Renumbered, RequesterId};
use crate::iommu::vtd::{RemappingRouter, Source, VtdConfig};
use crate::irq::{MsiMessage, MsiRoute, MsiRouter};
use crate::testing::{FakeRoute, Registers};

/// Index 3 in remappable format, no subhandle.
const REQUEST: MsiMessage = request(3);
const PRESENT: u64 = 1;
const SILENT: u64 = 2;

const fn request(handle: u64) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0010 | (handle & 0x7fff) << 5 | handle >> 15 << 2,
        data: 0,
    }
}

/// Vector 0x41 to APIC id `destination`, source checked.
fn irte(destination: u64) -> [u64; 2] {
    [
        destination << 32 | 0x41 << 16 | PRESENT,
        1 << 18 | u64::from(DEVICE),
    ]
}

impl Guest {
    fn set_irte(&self, index: u64, [low, high]: [u64; 2]) {
        self.store(IRT + index * 16, low);
        self.store(IRT + index * 16 + 8, high);
    }

    /// 256 entries; `mode` holds EIME.
    fn remap(&self, mode: u64) {
        self.vtd.write64(0xb8, IRT | mode | 7);
        self.vtd.write32(GCMD, SIRTP | QIE);
        self.vtd.write32(GCMD, IRE | QIE);
    }

    fn function(&self) -> Arc<RemappingRouter> {
        RemappingRouter::new(self.vtd.clone(), Source::Function(self.requester.clone()))
    }

    fn send(&self, message: MsiMessage) -> Option<MsiMessage> {
        let before = self.router.sent().len();
        self.function().send(message);
        self.router.sent().get(before).copied()
    }

    fn route(&self) -> (Arc<dyn MsiRoute>, Arc<FakeRoute>) {
        let route = self.function().route().expect("a route");
        let inner = self.router.routes().last().expect("made behind").clone();
        (route, inner)
    }

    fn reason(&self) -> u64 {
        self.vtd.read64(0x228) >> 32 & 0xff
    }
}

fn remapping(mode: u64) -> Guest {
    let mut guest = Guest::new();
    guest.start_queue();
    guest.remap(mode);
    guest
}

const EXTENDED: u64 = 1 << 11;
const IEC_GLOBAL: [u64; 2] = [4, 0];

fn iec(index: u64, mask: u64) -> [u64; 2] {
    [index << 32 | mask << 27 | 1 << 4 | 4, 0]
}

#[test]
fn without_remapping_messages_pass() {
    let guest = Guest::new();
    assert_eq!(guest.send(REQUEST), Some(REQUEST));
}

#[test]
fn an_entry_becomes_a_message() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, irte(0x1_2345));
    let expected = MsiMessage {
        address: 0x0001_2300_fee4_5000,
        data: 0x4041,
    };
    assert_eq!(guest.send(REQUEST), Some(expected));
}

#[test]
fn without_eim_the_destination_is_eight_bits() {
    let guest = remapping(0);
    guest.set_irte(3, irte(0x45 << 8));
    assert_eq!(
        guest.send(REQUEST).map(|message| message.address),
        Some(0xfee4_5000)
    );
}

#[test]
fn all_delivery_fields_arrive() {
    let guest = remapping(EXTENDED);
    let [low, high] = irte(1);
    guest.set_irte(3, [low | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5, high]);
    let expected = MsiMessage {
        address: 0xfee0_100c,
        data: 0xc141,
    };
    assert_eq!(guest.send(REQUEST), Some(expected));
}

#[test]
fn compatibility_format_is_blocked_unless_allowed() {
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x30,
    };
    let guest = remapping(0);
    assert_eq!(guest.send(message), None);
    assert_eq!(guest.reason(), 0x25);
    guest.vtd.write32(GCMD, IRE | QIE | 1 << 23);
    assert_eq!(guest.send(message), Some(message));
    let extended = remapping(EXTENDED);
    extended.vtd.write32(GCMD, IRE | QIE | 1 << 23);
    assert_eq!(extended.send(message), None, "never with EIME");
}

#[test]
fn extended_mode_that_is_not_offered_is_ignored() {
    let config = VtdConfig {
        extended_interrupts: false,
        ..CONFIG
    };
    let guest = Guest::with(config, 4);
    guest.remap(EXTENDED);
    guest.set_irte(3, irte(0x45 << 8));
    assert_eq!(
        guest.send(REQUEST).map(|message| message.address),
        Some(0xfee4_5000)
    );
}

#[test]
fn subhandles_add_to_the_handle() {
    let guest = remapping(EXTENDED);
    guest.set_irte(5, irte(1));
    let message = MsiMessage {
        address: REQUEST.address | 1 << 3,
        data: 2,
    };
    assert!(guest.send(message).is_some());
    let reserved = MsiMessage {
        data: 0x1_0002,
        ..message
    };
    assert_eq!(guest.send(reserved), None);
    assert_eq!(guest.reason(), 0x20);
}

#[test]
fn each_reason() {
    let [low, high] = irte(1);
    let cases = [
        ([0, 0], REQUEST, 0x22),
        ([low | 1 << 12, high], REQUEST, 0x24),
        ([low, high | 1 << 20], REQUEST, 0x24),
        ([low | 1 << 15, high], REQUEST, 0x24),
        ([low, high | 3 << 18], REQUEST, 0x24),
        ([low, high ^ 1], REQUEST, 0x26),
        ([low, high], request(256), 0x21),
        ([low, high], request(0xffff), 0x21),
    ];
    for (entry, message, reason) in cases {
        let guest = remapping(EXTENDED);
        guest.set_irte(3, entry);
        assert_eq!(guest.send(message), None);
        assert_eq!(guest.reason(), reason, "{entry:x?}");
        assert_eq!(guest.vtd.read64(0x228) as u16, DEVICE);
    }
}

#[test]
fn a_table_outside_ram_is_unreadable() {
    let guest = Guest::new();
    guest.vtd.write64(0xb8, 0x7f_ffff_f000 | 7);
    guest.vtd.write32(GCMD, SIRTP | IRE);
    assert_eq!(guest.send(REQUEST), None);
    assert_eq!(guest.reason(), 0x23);
}

#[test]
fn silent_entries_record_nothing() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, [SILENT, 0]);
    assert_eq!(guest.send(REQUEST), None);
    assert_eq!(guest.vtd.read32(FSTS), 0);
}

#[test]
fn sources_are_checked_as_the_entry_says() {
    let cases = [
        (0, true),
        (1 << 18 | 0x0100, true),
        (1 << 18 | 0x0101, false),
        (1 << 18 | 1 << 16 | 0x0104, true),
        (1 << 18 | 2 << 16 | 0x0106, true),
        (1 << 18 | 3 << 16 | 0x0107, true),
        (1 << 18 | 3 << 16 | 0x0108, false),
        // First bus in the high byte, as Linux writes it.
        (2 << 18 | 0x0103, true),
        (2 << 18 | 0x0203, false),
        (2 << 18 | 0x0001, true),
    ];
    for (high, delivered) in cases {
        let guest = remapping(EXTENDED);
        guest.set_irte(3, [irte(1)[0], high]);
        assert_eq!(guest.send(REQUEST).is_some(), delivered, "{high:#x}");
    }
}

#[test]
fn the_source_follows_the_live_bus() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    guest.requester.bus.set(7);
    assert_eq!(guest.send(REQUEST), None);
}

/// The kernel delivers a route's interrupts without asking: it must be told of the new id at once.
#[test]
fn a_route_follows_the_live_bus() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    assert!(inner.message().is_some());
    guest.requester.bus.set(7);
    let _none = guest.vtd.renumbered();
    assert_eq!(inner.message(), None, "the entry checks for the old id");
    guest.requester.bus.set((DEVICE >> 8) as u8);
    let _none = guest.vtd.renumbered();
    assert!(inner.message().is_some());
}

#[test]
fn the_io_apic_is_trusted() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let ioapic = RemappingRouter::new(guest.vtd.clone(), Source::Ioapic(RequesterId(0xff00)));
    ioapic.send(REQUEST);
    assert_eq!(guest.router.sent().len(), 1);
    ioapic.set_pin(4, Some(REQUEST));
    let translated = guest.router.sent()[0];
    assert_eq!(guest.router.pins(), [(4, Some(translated))]);
}

#[test]
fn a_route_is_translated_when_it_is_set() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    assert_eq!(inner.message().map(|message| message.data), Some(0x4041));
    set(&*route, None);
    assert_eq!(inner.message(), None);
}

#[test]
fn a_route_follows_its_entry_before_the_wait_completes() {
    let mut guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    guest.set_irte(3, irte(2));
    assert_eq!(
        inner.settings().len(),
        1,
        "nothing changes without an invalidation"
    );
    guest.invalidate(&[iec(3, 0)]);
    assert_eq!(inner.message().map(|message| message.address), Some(0xfee0_2000));
}

#[test]
fn other_entries_and_unchanged_ones_cost_nothing() {
    let mut guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    guest.set_irte(3, irte(2));
    guest.invalidate(&[iec(4, 2), iec(0, 1)]);
    assert_eq!(inner.settings().len(), 1);
    guest.invalidate(&[iec(0, 2)]);
    guest.invalidate(&[IEC_GLOBAL]);
    assert_eq!(inner.settings().len(), 2);
}

#[test]
fn routes_change_with_the_switch() {
    let guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    guest.vtd.write32(GCMD, QIE);
    assert_eq!(inner.message(), Some(REQUEST));
}

#[test]
fn a_blocked_route_faults_when_it_fires_and_not_before() {
    let mut guest = remapping(EXTENDED);
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    guest.vtd.report_blocked();
    assert_eq!(guest.vtd.read32(FSTS), 0);
    inner.set_pending(true);
    guest.vtd.report_blocked();
    assert_eq!(guest.reason(), 0x22);
    guest.vtd.write32(0x22c, 1 << 31);
    guest.vtd.report_blocked();
    assert_eq!(guest.vtd.read32(FSTS), 0, "an interrupt is told of once");
    assert!(!route.pending(), "the function has it unmasked");
    guest.set_irte(3, irte(1));
    guest.invalidate(&[iec(3, 0)]);
    assert!(inner.message().is_some());
}

#[test]
fn an_interrupt_that_was_blocked_never_comes_late() {
    let mut guest = remapping(EXTENDED);
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    inner.set_pending(true);
    guest.set_irte(3, irte(1));
    guest.invalidate(&[iec(3, 0)]);
    assert!(inner.message().is_some(), "the way is open");
    assert!(!inner.pending(), "what was blocked is gone");
    assert_eq!(guest.reason(), 0x22, "and was told of");
}

#[test]
fn an_interrupt_of_a_masked_vector_waits() {
    let guest = remapping(EXTENDED);
    let (route, inner) = guest.route();
    guest.set_irte(3, irte(1));
    inner.set_pending(true);
    guest.vtd.report_blocked();
    assert!(route.pending());
    set(&*route, Some(REQUEST));
    assert!(inner.pending(), "the kernel delivers it with the route");
    assert_eq!(guest.vtd.read32(FSTS), 0);
}

#[test]
fn all_routes_of_one_batch_are_one_change_before_the_wait() {
    let mut guest = remapping(EXTENDED);
    let routes: Vec<_> = (0..8).map(|_| guest.route()).collect();
    for (index, (route, _)) in (0..).zip(&routes) {
        guest.set_irte(index, irte(1));
        set(&**route, Some(request(index)));
    }
    let ioapic = RemappingRouter::new(guest.vtd.clone(), Source::Ioapic(RequesterId(0xff00)));
    ioapic.set_pin(4, Some(request(7)));
    let before = guest.router.changes();
    for index in 0..8 {
        guest.set_irte(index, irte(2));
    }
    let each: Vec<_> = (0..8).map(|index| iec(index, 0)).collect();
    // A wait that cannot complete: what came before it is done all the same.
    let wait_for_nothing = [1 << 5 | 5, 0xfed9_0000];
    guest.submit(&[each.as_slice(), &[wait_for_nothing]].concat());
    assert_eq!(guest.vtd.read32(FSTS), 1 << 4);
    for (_, inner) in &routes {
        assert_eq!(inner.message().map(|message| message.address), Some(0xfee0_2000));
    }
    assert_eq!(guest.router.changes() - before, 1);
}

#[test]
fn a_batch_that_changes_nothing_is_no_change() {
    let mut guest = remapping(EXTENDED);
    let (route, _) = guest.route();
    guest.set_irte(3, irte(1));
    set(&*route, Some(REQUEST));
    let before = guest.router.changes();
    guest.invalidate(&[IEC_GLOBAL, iec(3, 0)]);
    assert_eq!(guest.router.changes(), before);
}

#[test]
fn pins_follow_their_entries() {
    let mut guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let ioapic = RemappingRouter::new(guest.vtd.clone(), Source::Ioapic(RequesterId(0xff00)));
    ioapic.set_pin(4, Some(REQUEST));
    guest.set_irte(3, irte(2));
    guest.invalidate(&[IEC_GLOBAL]);
    guest.invalidate(&[IEC_GLOBAL]);
    assert_eq!(guest.router.pins().len(), 2);
}

#[test]
fn the_units_own_events_are_not_remapped() {
    let guest = remapping(EXTENDED);
    guest.vtd.write64(0x40, 0xfee0_1000);
    guest.vtd.write32(0x3c, 0x31);
    guest.vtd.write32(0x38, 0);
    assert_eq!(
        guest.send(REQUEST).map(|event| event.data),
        Some(0x31),
        "the fault event itself"
    );
}

#[test]
fn a_dropped_route_is_forgotten() {
    let mut guest = remapping(EXTENDED);
    guest.set_irte(3, irte(1));
    let (route, inner) = guest.route();
    set(&*route, Some(REQUEST));
    drop(route);
    guest.set_irte(3, irte(2));
    guest.invalidate(&[IEC_GLOBAL]);
    assert_eq!(inner.settings().len(), 1);
}

/// The machine's router outlives the reset, and a pin of the next boot may never be used.
#[test]
fn a_reset_takes_the_pins_back() {
    let guest = Guest::new();
    let ioapic = RemappingRouter::new(guest.vtd.clone(), Source::Ioapic(RequesterId(0xff00)));
    ioapic.set_pin(16, Some(REQUEST));
    guest.vtd.reset();
    let pins = guest.router.pins();
    let last = pins.iter().rev().find(|(pin, _)| *pin == 16);
    assert_eq!(last, Some(&(16, None)));
}

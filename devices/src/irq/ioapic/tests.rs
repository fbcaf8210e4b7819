//! What kvm-unit-tests' ioapic program checks from inside a guest, and what Linux does at start.

use proptest::prelude::*;

use super::*;
use crate::irq::{MsiRoute, RouteError};

/// Records what it is told.
#[derive(Default)]
struct FakeRouter {
    sent: Mutex<Vec<MsiMessage>>,
    pins: Mutex<Vec<(u8, Option<MsiMessage>)>>,
}

impl MsiRouter for FakeRouter {
    fn send(&self, message: MsiMessage) {
        self.sent.lock().expect("no test panics with it").push(message);
    }

    fn set_pin(&self, pin: u8, message: Option<MsiMessage>) {
        self.pins
            .lock()
            .expect("no test panics with it")
            .push((pin, message));
    }

    fn commit(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        Err("the I/O APIC needs no routes".into())
    }
}

struct Bench {
    ioapic: Arc<Ioapic>,
    router: Arc<FakeRouter>,
}

const EDGE: u32 = 0;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

impl Bench {
    fn new() -> Self {
        let router = Arc::new(FakeRouter::default());
        Self {
            ioapic: Ioapic::new(router.clone()),
            router,
        }
    }

    fn write(&self, index: u8, value: u32) {
        let _ = self.ioapic.write(0x00, &[index, 0, 0, 0]);
        let _ = self.ioapic.write(0x10, &value.to_le_bytes());
    }

    fn read(&self, index: u8) -> u32 {
        let _ = self.ioapic.write(0x00, &[index, 0, 0, 0]);
        let mut data = [0; 4];
        self.ioapic.read(0x10, &mut data);
        u32::from_le_bytes(data)
    }

    fn set_entry(&self, pin: u8, low: u32) {
        self.write(0x10 + 2 * pin, low);
    }

    fn entry(&self, pin: u8) -> u32 {
        self.read(0x10 + 2 * pin)
    }

    fn assert(&self, pin: u8, high: bool) {
        self.ioapic.line(pin).set_level(high);
    }

    /// Vectors sent since the last call.
    fn vectors(&self) -> Vec<u8> {
        let mut sent = self.router.sent.lock().expect("no test panics with it");
        sent.drain(..).map(|message| message.data as u8).collect()
    }

    /// What the router was told about pins since the last call.
    fn routes(&self) -> Vec<(u8, Option<u8>)> {
        let mut pins = self.router.pins.lock().expect("no test panics with it");
        pins.drain(..)
            .map(|(pin, message)| (pin, message.map(|message| message.data as u8)))
            .collect()
    }
}

#[test]
fn version_register_says_24_pins_and_is_read_only() {
    let bench = Bench::new();
    bench.write(1, 0xffff_ffff);
    assert_eq!(bench.read(1), 0x0017_0020);
}

#[test]
fn pins_that_are_wired_to_nothing_are_not_there() {
    let bench = Bench::new();
    bench.ioapic.show_pins(0..7);
    assert_eq!(bench.read(1), 0x0006_0020);
    bench.set_entry(6, LEVEL | 0x31);
    bench.set_entry(7, LEVEL | 0x32);
    assert_eq!(bench.entry(6), LEVEL | 0x31);
    assert_eq!(bench.entry(7), u32::MAX, "as a register that nobody has");
    assert_eq!(bench.routes(), [(6, Some(0x31))]);
}

#[test]
fn the_first_pin_of_the_guest_is_the_first_that_is_shown() {
    let bench = Bench::new();
    bench.ioapic.show_pins(4..6);
    assert_eq!(bench.read(1), 0x0001_0020);
    bench.set_entry(1, LEVEL | 0x31);
    assert_eq!(bench.entry(2), u32::MAX);
    assert_eq!(bench.routes(), [(5, Some(0x31))], "the wire's own number");
    bench.ioapic.line(5).set_level(true);
    assert_eq!(bench.entry(1), LEVEL | 0x31 | 1 << 14, "its end is awaited");
}

#[test]
fn id_register_keeps_bits_24_to_27_only() {
    let bench = Bench::new();
    bench.write(0, 0xffff_ffff);
    assert_eq!(bench.read(0), 0x0f00_0000);
}

#[test]
fn arbitration_register_follows_the_id_and_is_read_only() {
    let bench = Bench::new();
    bench.write(0, 0x0a00_0000);
    bench.write(2, 0);
    assert_eq!(bench.read(2), 0x0a00_0000);
}

#[test]
fn every_pin_starts_masked() {
    let bench = Bench::new();
    assert!((0..24).all(|pin| bench.entry(pin) == MASKED && bench.read(0x11 + 2 * pin) == 0));
}

#[test]
fn delivery_status_and_remote_irr_are_read_only() {
    let bench = Bench::new();
    bench.set_entry(3, LEVEL | REMOTE_IRR | 1 << 12 | MASKED | 0x33);
    assert_eq!(bench.entry(3), LEVEL | MASKED | 0x33);
}

#[test]
fn edge_interrupt_is_sent_once_per_rising_edge() {
    let bench = Bench::new();
    bench.set_entry(14, EDGE | 0x76);
    bench.assert(14, true);
    bench.assert(14, true);
    assert_eq!(bench.vectors(), [0x76]);
    bench.assert(14, false);
    bench.assert(14, true);
    assert_eq!(bench.vectors(), [0x76]);
    assert_eq!(bench.entry(14), EDGE | 0x76, "no remote IRR for edges");
}

#[test]
fn edge_while_masked_is_lost() {
    let bench = Bench::new();
    bench.set_entry(14, EDGE | MASKED | 0x76);
    bench.assert(14, true);
    bench.set_entry(14, EDGE | 0x76);
    assert_eq!(bench.vectors(), [] as [u8; 0]);
}

#[test]
fn level_interrupt_sets_remote_irr_until_its_end() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    assert_eq!(bench.vectors(), [0x77]);
    assert_eq!(bench.entry(14), LEVEL | REMOTE_IRR | 0x77);
    bench.assert(14, false);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(bench.entry(14), LEVEL | 0x77);
    assert_eq!(bench.vectors(), [] as [u8; 0]);
}

#[test]
fn level_interrupts_coalesce_while_one_is_in_service() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    for _ in 0..3 {
        bench.assert(14, true);
        bench.assert(14, false);
    }
    assert_eq!(bench.vectors(), [0x77]);
}

#[test]
fn level_still_asserted_at_the_end_is_sent_again() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(bench.vectors(), [0x77, 0x77]);
    assert_eq!(bench.entry(14) & REMOTE_IRR, REMOTE_IRR);
}

#[test]
fn level_masked_while_asserted_is_sent_when_unmasked() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | MASKED | 0x77);
    bench.assert(14, true);
    assert_eq!(bench.vectors(), [] as [u8; 0]);
    bench.set_entry(14, LEVEL | 0x77);
    assert_eq!(bench.vectors(), [0x77]);
}

#[test]
fn level_released_while_masked_is_not_sent_when_unmasked() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | MASKED | 0x77);
    bench.assert(14, true);
    bench.assert(14, false);
    bench.set_entry(14, LEVEL | 0x77);
    assert_eq!(bench.vectors(), [] as [u8; 0]);
}

#[test]
fn unmasking_an_interrupt_in_service_waits_for_its_end() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    bench.set_entry(14, LEVEL | MASKED | 0x77);
    bench.set_entry(14, LEVEL | 0x77);
    assert_eq!(bench.vectors(), [0x77]);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(bench.vectors(), [0x77]);
}

#[test]
fn end_while_masked_is_seen_and_unmasking_sends_again() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    bench.set_entry(14, LEVEL | MASKED | 0x77);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(bench.vectors(), [0x77]);
    bench.set_entry(14, LEVEL | 0x77);
    assert_eq!(bench.vectors(), [0x77]);
}

#[test]
fn end_of_another_vector_changes_nothing() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    bench.ioapic.end_of_interrupt(0x78);
    assert_eq!(bench.entry(14) & REMOTE_IRR, REMOTE_IRR);
}

#[test]
fn one_end_serves_all_pins_of_the_vector() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.set_entry(15, LEVEL | 0x77);
    bench.assert(14, true);
    bench.assert(15, true);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(bench.vectors(), [0x77; 4]);
}

/// A device that lowers its wire when its interrupt ends, and counts how often it was told.
struct Wired {
    line: Arc<dyn IrqLine>,
    ends: Mutex<u32>,
}

impl EndOfInterrupt for Wired {
    fn end_of_interrupt(&self) {
        *self.ends.lock().expect("no test panics with it") += 1;
        self.line.set_level(false);
    }
}

fn device(bench: &Bench, pin: u8) -> Arc<Wired> {
    let (line, ends) = (bench.ioapic.line(pin), Mutex::new(0));
    let device = Arc::new(Wired { line, ends });
    let listener: Weak<Wired> = Arc::downgrade(&device);
    bench.ioapic.listen(pin, listener);
    device
}

#[test]
fn a_listener_that_lowers_its_wire_at_the_end_is_not_interrupted_again() {
    let bench = Bench::new();
    let device = device(&bench, 17);
    bench.set_entry(17, LEVEL | 0x77);
    bench.assert(17, true);
    bench.ioapic.end_of_interrupt(0x77);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(bench.vectors(), [0x77]);
    assert_eq!(*device.ends.lock().expect("no test panics with it"), 1);
}

#[test]
fn a_listener_hears_nothing_of_other_pins_and_may_be_gone() {
    let bench = Bench::new();
    let device = device(&bench, 18);
    bench.set_entry(17, LEVEL | 0x77);
    bench.set_entry(18, LEVEL | 0x78);
    bench.assert(17, true);
    bench.assert(18, true);
    bench.ioapic.end_of_interrupt(0x77);
    assert_eq!(*device.ends.lock().expect("no test panics with it"), 0);
    drop(device);
    bench.ioapic.end_of_interrupt(0x78);
    bench.ioapic.listen(200, Weak::<Wired>::new());
}

#[test]
fn eoi_register_ends_an_interrupt() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    bench.assert(14, false);
    let _ = bench.ioapic.write(0x40, &[0x77, 0, 0, 0]);
    assert_eq!(bench.entry(14), LEVEL | 0x77);
}

#[test]
fn switching_to_edge_clears_remote_irr() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x77);
    bench.assert(14, true);
    bench.set_entry(14, EDGE | MASKED | 0x77);
    bench.set_entry(14, LEVEL | MASKED | 0x77);
    assert_eq!(bench.entry(14), LEVEL | MASKED | 0x77);
}

#[test]
fn moving_the_destination_in_service_keeps_remote_irr() {
    let bench = Bench::new();
    bench.set_entry(14, LEVEL | 0x84);
    bench.assert(14, true);
    bench.assert(14, false);
    bench.write(0x10 + 2 * 14 + 1, 0x0100_0000);
    assert_eq!(bench.entry(14) & REMOTE_IRR, REMOTE_IRR);
    bench.ioapic.end_of_interrupt(0x84);
    bench.assert(14, true);
    assert_eq!(bench.vectors(), [0x84, 0x84]);
}

#[test]
fn compatible_entry_becomes_a_compatible_message() {
    // Destination 0x12, logical, lowest priority, level, vector 0x51.
    let entry = RedirectionEntry::from_bits(0x1200_0000_0000_0000 | 1 << 15 | 1 << 11 | 1 << 8 | 0x51);
    assert_eq!(
        entry.message(),
        MsiMessage {
            address: 0xfee1_2004,
            data: 0xc151
        }
    );
}

#[test]
fn remappable_entry_becomes_a_remappable_message() {
    // Index 0x8005: bits 14:0 at 63:49, format at 48, bit 15 at 11. In the message: 19:5, 4 and 2.
    let entry = RedirectionEntry::from_bits(0x0005 << 49 | 1 << 48 | 1 << 11 | 0x18);
    assert_eq!(
        entry.message(),
        MsiMessage {
            address: 0xfee0_00b4,
            data: 0x18
        }
    );
}

#[test]
fn router_hears_of_unmasked_level_pins_only() {
    let bench = Bench::new();
    bench.set_entry(4, EDGE | 0x34);
    bench.set_entry(16, LEVEL | MASKED | 0x40);
    assert_eq!(bench.routes(), []);
    bench.set_entry(16, LEVEL | 0x40);
    bench.set_entry(16, LEVEL | 0x40);
    bench.set_entry(16, LEVEL | MASKED | 0x40);
    assert_eq!(bench.routes(), [(16, Some(0x40)), (16, None)]);
}

#[test]
fn masking_in_service_keeps_the_route_that_brings_the_end() {
    let bench = Bench::new();
    bench.set_entry(16, LEVEL | 0x40);
    bench.assert(16, true);
    bench.set_entry(16, LEVEL | MASKED | 0x40);
    bench.ioapic.end_of_interrupt(0x40);
    bench.set_entry(16, LEVEL | 0x40);
    assert_eq!(bench.routes(), [(16, Some(0x40))]);
}

#[test]
fn narrow_index_writes_are_taken_and_narrow_window_accesses_are_not() {
    let bench = Bench::new();
    let _ = bench.ioapic.write(0x00, &[1]);
    let mut index = [0; 2];
    bench.ioapic.read(0x00, &mut index);
    assert_eq!(index, [1, 0]);
    let mut window = [0; 2];
    bench.ioapic.read(0x10, &mut window);
    assert_eq!(window, [0xff; 2]);
    let mut unknown = [0; 4];
    bench.ioapic.read(0x20, &mut unknown);
    assert_eq!(unknown, [0xff; 4]);
}

#[test]
fn wire_to_a_missing_pin_goes_nowhere() {
    let bench = Bench::new();
    bench.assert(24, true);
    assert_eq!(bench.vectors(), [] as [u8; 0]);
}

proptest! {
    #[test]
    fn any_accesses_are_survived_and_read_only_bits_hold(
        accesses in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u32>()), 0..200)
    ) {
        let bench = Bench::new();
        for (wire, index, value) in accesses {
            if wire {
                bench.assert(index, value & 1 != 0);
                bench.ioapic.end_of_interrupt((value >> 8) as u8);
            } else {
                bench.write(index, value);
                let _ = bench.read(index);
            }
        }
        for pin in 0..24 {
            let entry = bench.entry(pin);
            prop_assert_eq!(entry & 1 << 12, 0);
            prop_assert!(entry & REMOTE_IRR == 0 || entry & LEVEL != 0);
        }
    }
}

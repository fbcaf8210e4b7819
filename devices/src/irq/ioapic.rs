//! The I/O APIC: wires in, interrupt messages out (Intel 82093AA data sheet, with the EOI register of
//! version 0x20, ICH9 data sheet §13.5).
//!
//! It lives here and not in the kernel because interrupt remapping stands between it and the CPUs: an entry
//! in remappable format becomes a message in remappable format and nothing here needs to know.
//!
//! A pin's wire carries "asserted" and "not asserted"; the polarity bit is kept for the guest but changes
//! nothing, as in KVM and QEMU: who drives the wire and who programs the pin agree through ACPI.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bitfield_struct::bitfield;

use crate::irq::{EndOfInterrupt, IrqLine, MsiMessage, MsiRouter};
use crate::lock::lock;
use crate::{Chain, Device, Effect};

/// Memory-mapped registers (82093AA §3.1), by offset.
const INDEX: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

/// Indirect registers (82093AA §3.2), by index.
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTION: u8 = 0x10;

/// Number of input pins at most, as on a PC.
pub const PINS: u8 = 24;
/// Version 0x20, which has the EOI register; the number of the last pin stands above.
const VERSION_NUMBER: u32 = 0x20;
const LAST_PIN_SHIFT: u32 = 16;
/// The identification register's only writable bits.
const ID_MASK: u32 = 0x0f00_0000;
/// Where interrupt messages go (Intel SDM vol. 3 §11.11.1).
const MESSAGE_BASE: u64 = 0xfee0_0000;

/// A redirection table entry (82093AA §3.2.4; remappable format: VT-d §5.1.5.1).
#[bitfield(u64, new = false)]
#[derive(PartialEq, Eq)]
struct RedirectionEntry {
    vector: u8,
    #[bits(3)]
    delivery_mode: u8,
    /// Logical destinations; remappable format: bit 15 of the interrupt index.
    destination_mode: bool,
    /// Read only. Messages leave at once, so it is never set.
    delivery_pending: bool,
    active_low: bool,
    /// Read only. A level interrupt was sent and its end is awaited.
    remote_irr: bool,
    level: bool,
    masked: bool,
    #[bits(31)]
    __: u32,
    /// Bits 63:56 are the destination; remappable format: bit 48 is set, 63:49 are index bits 14 to 0.
    destination: u16,
}

impl RedirectionEntry {
    const RESET: Self = Self(1 << 16);

    /// The message this entry sends. One function for both formats: the bits of an entry in remappable
    /// format are laid out so that this very conversion gives a remappable message (VT-d §5.1.5.1, §5.1.2.2),
    /// and KVM's extended destination bits travel the same way.
    fn message(self) -> MsiMessage {
        let address =
            MESSAGE_BASE | u64::from(self.destination()) << 4 | u64::from(self.destination_mode()) << 2;
        let data = u32::from(self.vector())
            | u32::from(self.delivery_mode()) << 8
            | u32::from(self.level()) << 14
            | u32::from(self.level()) << 15;
        MsiMessage { address, data }
    }

    /// One half replaced by what the guest wrote, as far as it is writable.
    fn with_half(self, high: bool, value: u32) -> Self {
        let value = u64::from(value);
        let written = if high {
            value << 32 | self.0 & 0xffff_ffff
        } else {
            self.0 & !0xffff_ffff | value
        };
        let entry = Self(written).with_delivery_pending(false);
        // An edge interrupt awaits no end; switching to edge is how drivers clear a stuck one.
        entry.with_remote_irr(self.remote_irr() && entry.level())
    }
}

/// The I/O APIC. Locks: its core first, then whatever the router takes. Listeners are called with no lock
/// held.
pub struct Ioapic {
    router: Arc<dyn MsiRouter>,
    core: Mutex<Core>,
    listeners: Mutex<[Option<Weak<dyn EndOfInterrupt>>; PINS as usize]>,
}

struct Core {
    /// Pins that the guest finds, the first of them as its pin 0.
    shown: Range<u8>,
    index: u8,
    id: u32,
    pins: [Pin; PINS as usize],
}

#[derive(Clone, Copy)]
struct Pin {
    entry: RedirectionEntry,
    asserted: bool,
    /// What the router was told last.
    routed: Option<MsiMessage>,
}

impl Pin {
    const RESET: Self = Self {
        entry: RedirectionEntry::RESET,
        asserted: false,
        routed: None,
    };
}

impl Ioapic {
    /// Bytes of guest memory it takes.
    pub const LEN_BYTES: u64 = 0x1000;

    /// An I/O APIC with every pin masked.
    pub fn new(router: Arc<dyn MsiRouter>) -> Arc<Self> {
        let core = Core {
            shown: 0..PINS,
            index: 0,
            id: 0,
            pins: [Pin::RESET; PINS as usize],
        };
        Arc::new(Self {
            router,
            core: Mutex::new(core),
            listeners: Mutex::default(),
        })
    }

    /// Before the guest looks: of all pins it finds only those in `shown`, which is not empty and ends at [`PINS`] at the
    /// latest. A driver goes through all of them several times, by two accesses for each half of an entry. Wires keep
    /// their numbers, which are those of the system: the guest adds the first to its own (ACPI 6.5 §5.2.12.3).
    pub fn show_pins(&self, shown: Range<u8>) {
        debug_assert!(!shown.is_empty() && shown.end <= PINS);
        self.lock().shown = shown;
    }

    /// The wire to `pin`. A pin that does not exist gives a wire to nowhere.
    pub fn line(self: &Arc<Self>, pin: u8) -> Arc<dyn IrqLine> {
        Arc::new(Line {
            ioapic: Arc::clone(self),
            pin,
        })
    }

    /// Lets `listener` hear of the end of interrupts of `pin`. A pin has one listener: a
    /// [`SharedLine`](crate::irq::SharedLine) passes it on to all its devices.
    pub fn listen(&self, pin: u8, listener: Weak<dyn EndOfInterrupt>) {
        let mut listeners = lock(&self.listeners);
        if let Some(place) = listeners.get_mut(usize::from(pin)) {
            *place = Some(listener);
        }
    }

    /// A CPU ended the interrupt `vector`. Level pins that wait for it may interrupt again, and do so at
    /// once if their wire is still asserted after the pin's listener was told.
    pub fn end_of_interrupt(&self, vector: u8) {
        let ended = self.awaiting(vector);
        for (_, listener) in &ended {
            if let Some(listener) = listener.as_ref().and_then(Weak::upgrade) {
                listener.end_of_interrupt();
            }
        }
        let mut core = self.lock();
        for (number, _) in ended {
            let pin = &mut core.pins[number];
            // The guest may have given the pin another vector meanwhile.
            if pin.entry.remote_irr() && pin.entry.vector() == vector {
                pin.entry.set_remote_irr(false);
                self.deliver_level(pin);
            }
        }
    }

    /// The pins whose interrupt in service is `vector`, with their listeners.
    fn awaiting(&self, vector: u8) -> Vec<(usize, Option<Weak<dyn EndOfInterrupt>>)> {
        let core = self.lock();
        let listeners = lock(&self.listeners);
        let pins = core.pins.iter().zip(listeners.iter()).enumerate();
        pins.filter(|(_, (pin, _))| pin.entry.remote_irr() && pin.entry.vector() == vector)
            .map(|(number, (_, listener))| (number, listener.clone()))
            .collect()
    }

    fn set_level(&self, number: u8, asserted: bool) {
        let mut core = self.lock();
        let Some(pin) = core.pins.get_mut(usize::from(number)) else {
            return;
        };
        let rising = asserted && !pin.asserted;
        pin.asserted = asserted;
        if pin.entry.level() {
            self.deliver_level(pin);
        } else if rising && !pin.entry.masked() {
            // An edge on a masked pin is lost (82093AA §3.2.4, interrupt mask).
            self.router.send(pin.entry.message());
        }
    }

    /// Sends a level interrupt if the wire asks for it, the guest allows it and none is in service.
    fn deliver_level(&self, pin: &mut Pin) {
        let entry = pin.entry;
        if entry.level() && pin.asserted && !entry.masked() && !entry.remote_irr() {
            pin.entry.set_remote_irr(true);
            self.router.send(entry.message());
        }
    }

    fn read_register(&self) -> u32 {
        let core = self.lock();
        match core.index {
            ID | ARBITRATION => core.id,
            VERSION => (core.shown.len() as u32 - 1) << LAST_PIN_SHIFT | VERSION_NUMBER,
            index => match core.pin_of(index) {
                Some((number, high)) => {
                    let bits = core.pins[usize::from(number)].entry.into_bits();
                    (if high { bits >> 32 } else { bits }) as u32
                }
                None => u32::MAX,
            },
        }
    }

    fn write_register(&self, value: u32) {
        let mut core = self.lock();
        if core.index == ID {
            core.id = value & ID_MASK;
        } else if let Some((number, high)) = core.pin_of(core.index) {
            let pin = &mut core.pins[usize::from(number)];
            pin.entry = pin.entry.with_half(high, value);
            // The route first: the end of an interrupt that is sent now must find its way back.
            self.update_route(number, pin);
            self.deliver_level(pin);
        }
    }

    /// Tells the router what a level pin sends, so that ends of interrupt come back to us.
    ///
    /// A masked pin in service keeps its route, else the awaited end would never be reported and the pin
    /// would stay silent for ever; the same holds between the two halves of a rewritten entry.
    fn update_route(&self, number: u8, pin: &mut Pin) {
        let entry = pin.entry;
        let wanted = match (entry.level(), entry.masked(), entry.remote_irr()) {
            (true, false, _) => Some(entry.message()),
            (true, true, true) => pin.routed,
            _ => None,
        };
        if wanted != pin.routed {
            pin.routed = wanted;
            self.router.set_pin(number, wanted);
            if let Err(error) = self.router.commit() {
                log::error!("{}: I/O APIC pin {number} may not work", Chain(&*error));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

impl Core {
    /// The pin and half of an entry behind an indirect register.
    fn pin_of(&self, index: u8) -> Option<(u8, bool)> {
        let halves = index.checked_sub(REDIRECTION)?;
        let pin = self.shown.start + halves / 2;
        (pin < self.shown.end).then_some((pin, halves % 2 == 1))
    }
}

/// The pins that are not masked, a line each.
impl fmt::Display for Ioapic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pins = lock(&self.core).pins;
        for (number, Pin { entry, asserted, .. }) in pins.iter().enumerate() {
            if entry.masked() {
                continue;
            }
            let MsiMessage { address, data } = entry.message();
            let kind = if entry.level() { "level" } else { "edge" };
            let state = match (asserted, entry.remote_irr()) {
                (_, true) => ", its end is awaited",
                (true, false) => ", high",
                (false, false) => "",
            };
            writeln!(
                f,
                "pin {number}: {kind}, message {data:#x} to {address:#x}{state}"
            )?;
        }
        Ok(())
    }
}

impl Device for Ioapic {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (INDEX, 1 | 2 | 4) => u32::from(self.lock().index),
            (WINDOW, 4) => self.read_register(),
            _ => return data.fill(0xff),
        };
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            (INDEX, [index] | [index, _] | [index, _, _, _]) => self.lock().index = *index,
            (WINDOW, &[a, b, c, d]) => self.write_register(u32::from_le_bytes([a, b, c, d])),
            (EOI, [vector, _, _, _]) => self.end_of_interrupt(*vector),
            _ => {}
        }
        Effect::None
    }
}

struct Line {
    ioapic: Arc<Ioapic>,
    pin: u8,
}

impl IrqLine for Line {
    fn set_level(&self, high: bool) {
        self.ioapic.set_level(self.pin, high);
    }
}

#[cfg(test)]
mod tests;

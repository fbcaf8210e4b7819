//! A channel of the interval timer: its counter, and how a count goes through a port of one byte.

use std::time::Duration;

use bitfield_struct::bitfield;

use super::counter::{Counter, Mode};

/// The control word ("Control Word Format").
#[bitfield(u8)]
pub(super) struct ControlWord {
    decimal: bool,
    #[bits(3)]
    mode: u8,
    /// Which bytes of a count are read and written; 0 latches the count.
    #[bits(2)]
    access: u8,
    /// 3 is the read-back command.
    #[bits(2)]
    pub(super) channel: u8,
}

const LATCH: u8 = 0;
const LOW: u8 = 1;
const HIGH: u8 = 2;

/// A channel.
pub(super) struct Channel {
    counter: Counter,
    control: ControlWord,
    /// The low byte of a count whose high byte is still to come.
    low: Option<u8>,
    /// The low byte was read, the high byte is next.
    is_high_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    /// One whose gate is low and that has no count.
    pub(super) fn new() -> Self {
        Self {
            counter: Counter::new(),
            control: ControlWord::new().with_access(LOW | HIGH).with_mode(3),
            low: None,
            is_high_next: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// One whose gate is high and that has the largest count.
    pub(super) fn running(now: Duration) -> Self {
        let mut channel = Self::new();
        channel.set_gate(true, now);
        channel.counter.load(0, now);
        channel
    }

    /// Takes a control word that is for this channel.
    pub(super) fn command(&mut self, word: ControlWord, now: Duration) {
        if word.access() == LATCH {
            return self.latch_count(now);
        }
        self.control = word;
        (self.low, self.is_high_next) = (None, false);
        (self.latched_count, self.latched_status) = (None, None);
        self.counter.program(Mode::from_bits(word.mode()), word.decimal());
    }

    /// Sets the gate.
    pub(super) fn set_gate(&mut self, gate: bool, now: Duration) {
        self.counter.set_gate(gate, now);
    }

    /// The gate, as it was set.
    pub(super) fn gate(&self) -> bool {
        self.counter.gate()
    }

    /// The output.
    pub(super) fn output(&self, now: Duration) -> bool {
        self.counter.output(now)
    }

    /// A count that is latched already stays.
    pub(super) fn latch_count(&mut self, now: Duration) {
        self.latched_count.get_or_insert(self.counter.value(now));
    }

    /// The output and whether a count is missing, in the place of the channel's number.
    pub(super) fn latch_status(&mut self, now: Duration) {
        let (output, null) = (self.counter.output(now), self.counter.wants_count());
        let upper = (u8::from(output) << 1) | u8::from(null);
        let status = self.control.with_channel(upper).into_bits();
        self.latched_status.get_or_insert(status);
    }

    /// The next byte of what is latched, or else of the count.
    pub(super) fn read(&mut self, now: Duration) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| self.counter.value(now))
            .to_le_bytes();
        let is_high = match self.control.access() {
            LOW => false,
            HIGH => true,
            _ => {
                self.is_high_next = !self.is_high_next;
                !self.is_high_next
            }
        };
        if !self.is_high_next {
            self.latched_count = None;
        }
        if is_high { high } else { low }
    }

    /// Takes a byte of a count.
    pub(super) fn write(&mut self, byte: u8, now: Duration) {
        let bytes = match (self.control.access(), self.low.take()) {
            (LOW, _) => [byte, 0],
            (HIGH, _) => [0, byte],
            (_, Some(low)) => [low, byte],
            (_, None) => {
                self.low = Some(byte);
                return;
            }
        };
        self.counter.load(u16::from_le_bytes(bytes), now);
    }
}

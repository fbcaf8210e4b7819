//! The third channel of the PC's interval timer (8254): the one that raises no interrupt. Kernels that know no other
//! clock measure their CPU's against it: they open its gate at port 0x61, load a count at 0x42 and wait for its output
//! at 0x61. Linux under KVM knows better and leaves it alone.
//!
//! The channels that need an interrupt controller of the PC's first years are missing: ports 0x40 and 0x41 belong to
//! nobody, and what a control word asks of them is forgotten.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitfield_struct::bitfield;

use super::counter::{Counter, Mode};
use super::rtc::Clock;
use crate::lock::lock;
use crate::{Device, Effect};

/// Offsets of the ports, 0x42 and 0x43.
const COUNT: u64 = 0;
const CONTROL: u64 = 1;

/// The memory refresh, whose bit kernels have taken for a clock, turns every 15 microseconds.
const REFRESH_NANOS: u128 = 15_085;

/// The control word ("Control Word Format").
#[bitfield(u8)]
struct ControlWord {
    decimal: bool,
    #[bits(3)]
    mode: u8,
    /// Which bytes of a count are read and written; 0 latches the count.
    #[bits(2)]
    access: u8,
    /// 3 is the read-back command.
    #[bits(2)]
    channel: u8,
}

const LATCH: u8 = 0;
const LOW: u8 = 1;
const HIGH: u8 = 2;
const CHANNEL_2: u8 = 2;
const READ_BACK: u8 = 3;

/// The read-back command ("Read-Back Command Format"), whose upper bits are a control word's.
#[bitfield(u8)]
struct ReadBack {
    #[bits(3)]
    _others: u8,
    channel_2: bool,
    no_status: bool,
    no_count: bool,
    #[bits(2)]
    _command: u8,
}

/// The lower bits of port 0x61 can be written (Intel 7-series PCH data sheet §13.7.1, NMI_SC).
#[bitfield(u8)]
struct SystemControlBits {
    gate: bool,
    speaker: bool,
    no_system_error: bool,
    no_channel_check: bool,
    refresh: bool,
    output: bool,
    /// What causes of a non-maskable interrupt there are: none.
    #[bits(2)]
    _causes: u8,
}

/// The channel, at ports 0x42 and 0x43.
pub struct Pit {
    clock: Clock,
    core: Mutex<Core>,
}

struct Core {
    counter: Counter,
    control: ControlWord,
    /// The low byte of a count whose high byte is still to come.
    low: Option<u8>,
    /// The low byte was read, the high byte is next.
    is_high_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The bits of port 0x61 that only keep what was written.
    kept: SystemControlBits,
}

impl Pit {
    /// Number of ports: the count and the control word.
    pub const PORTS: u64 = 2;

    /// A channel whose gate is closed; `clock` says the time since any moment.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let core = Core {
            counter: Counter::new(),
            control: ControlWord::new().with_access(LOW | HIGH).with_mode(3),
            low: None,
            is_high_next: false,
            latched_count: None,
            latched_status: None,
            kept: SystemControlBits::new(),
        };
        Self {
            clock,
            core: Mutex::new(core),
        }
    }
}

impl Device for Pit {
    fn name(&self) -> &str {
        "pit"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (COUNT, [byte]) => *byte = lock(&self.core).read((self.clock)()),
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let now = (self.clock)();
        match (offset, data) {
            (COUNT, [byte]) => lock(&self.core).write(*byte, now),
            (CONTROL, [byte]) => lock(&self.core).command(*byte, now),
            _ => {}
        }
        Effect::None
    }
}

impl Core {
    fn command(&mut self, byte: u8, now: Duration) {
        let word = ControlWord::from_bits(byte);
        match word.channel() {
            CHANNEL_2 if word.access() == LATCH => self.latch_count(now),
            CHANNEL_2 => {
                self.control = word;
                (self.low, self.is_high_next) = (None, false);
                (self.latched_count, self.latched_status) = (None, None);
                self.counter.program(Mode::from_bits(word.mode()), word.decimal());
            }
            READ_BACK => {
                let command = ReadBack::from_bits(byte);
                if command.channel_2() && !command.no_count() {
                    self.latch_count(now);
                }
                if command.channel_2() && !command.no_status() {
                    self.latch_status(now);
                }
            }
            _ => {}
        }
    }

    /// A count that is latched already stays.
    fn latch_count(&mut self, now: Duration) {
        self.latched_count.get_or_insert(self.counter.value(now));
    }

    /// The output and whether a count is missing, in the place of the channel's number.
    fn latch_status(&mut self, now: Duration) {
        let (output, null) = (self.counter.output(now), self.counter.wants_count());
        let upper = (u8::from(output) << 1) | u8::from(null);
        let status = self.control.with_channel(upper).into_bits();
        self.latched_status.get_or_insert(status);
    }

    fn read(&mut self, now: Duration) -> u8 {
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

    fn write(&mut self, byte: u8, now: Duration) {
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

/// The gate and the output of the channel, at port 0x61 among what else a PC has there.
pub struct SystemControl(Arc<Pit>);

impl SystemControl {
    /// Number of ports.
    pub const PORTS: u64 = 1;

    /// The port of this channel.
    #[must_use]
    pub fn new(pit: Arc<Pit>) -> Self {
        Self(pit)
    }
}

impl Device for SystemControl {
    fn name(&self) -> &str {
        "system-control"
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        let now = (self.0.clock)();
        let core = lock(&self.0.core);
        let bits = core
            .kept
            .with_gate(core.counter.gate())
            .with_refresh(now.as_nanos() / REFRESH_NANOS % 2 == 1)
            .with_output(core.counter.output(now));
        match data {
            [byte] => *byte = bits.into_bits(),
            data => data.fill(0xff),
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Effect {
        if let [byte] = data {
            let now = (self.0.clock)();
            let bits = SystemControlBits::from_bits(*byte);
            let mut core = lock(&self.0.core);
            core.counter.set_gate(bits.gate(), now);
            core.kept = SystemControlBits::new()
                .with_speaker(bits.speaker())
                .with_no_system_error(bits.no_system_error())
                .with_no_channel_check(bits.no_channel_check());
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const GATE: u8 = 1;
    const OUTPUT: u8 = 0x20;

    /// The two devices, and the nanoseconds of their clock.
    struct Bench {
        pit: Arc<Pit>,
        control: SystemControl,
        nanos: Arc<AtomicU64>,
    }

    impl Bench {
        fn new() -> Self {
            let nanos = Arc::new(AtomicU64::new(7_000_000));
            let clock = Arc::clone(&nanos);
            let pit = Arc::new(Pit::new(Box::new(move || {
                Duration::from_nanos(clock.load(Ordering::Relaxed))
            })));
            let control = SystemControl::new(Arc::clone(&pit));
            Self { pit, control, nanos }
        }

        fn wait(&self, micros: u64) {
            self.nanos.fetch_add(micros * 1000, Ordering::Relaxed);
        }

        fn out(&self, port: u16, byte: u8) {
            let _none = match port {
                0x61 => self.control.write(0, &[byte]),
                _ => self.pit.write(u64::from(port - 0x42), &[byte]),
            };
        }

        fn inb(&self, port: u16) -> u8 {
            let mut byte = [0];
            match port {
                0x61 => self.control.read(0, &mut byte),
                _ => self.pit.read(u64::from(port - 0x42), &mut byte),
            }
            byte[0]
        }
    }

    /// What a kernel does that measures its CPU: 50 ms in mode 0.
    #[test]
    fn a_kernel_measures_50_ms() {
        let bench = Bench::new();
        bench.out(0x61, (bench.inb(0x61) & !2) | GATE);
        bench.out(0x43, 0xb0);
        let [low, high] = 59_659u16.to_le_bytes();
        bench.out(0x42, low);
        bench.wait(10);
        assert_eq!(bench.inb(0x61) & OUTPUT, 0, "half a count does not count");
        bench.out(0x42, high);
        bench.wait(49_999);
        assert_eq!(bench.inb(0x61) & OUTPUT, 0);
        bench.wait(2);
        assert_eq!(bench.inb(0x61) & (OUTPUT | GATE), OUTPUT | GATE);
    }

    #[test]
    fn a_latched_count_stands_still_until_it_is_read() {
        let bench = Bench::new();
        bench.out(0x61, GATE);
        bench.out(0x43, 0xb4);
        bench.out(0x42, 0x00);
        bench.out(0x42, 0x80);
        bench.wait(1000);
        bench.out(0x43, 0x80);
        bench.wait(1000);
        bench.out(0x43, 0x80);
        let latched = u16::from_le_bytes([bench.inb(0x42), bench.inb(0x42)]);
        assert_eq!(latched, 0x8000 - 1193);
        let live = u16::from_le_bytes([bench.inb(0x42), bench.inb(0x42)]);
        assert_eq!(live, 0x8000 - 2386);
    }

    #[test]
    fn read_back_tells_of_a_count_that_is_missing() {
        let bench = Bench::new();
        bench.out(0x43, 0xb0);
        bench.out(0x43, 0xe8);
        assert_eq!(bench.inb(0x42), 0x70, "mode 0, both bytes, output low, no count");
        bench.out(0x42, 5);
        bench.out(0x42, 0);
        // Status and count at once: the status comes first.
        bench.out(0x43, 0xc8);
        assert_eq!([bench.inb(0x42), bench.inb(0x42), bench.inb(0x42)], [0x30, 5, 0]);
    }

    #[test]
    fn one_byte_can_be_the_whole_count() {
        let bench = Bench::new();
        bench.out(0x61, GATE);
        bench.out(0x43, 0xa0);
        bench.out(0x42, 0x10);
        assert_eq!(bench.inb(0x42), 0x10, "the high byte, again");
        assert_eq!(bench.inb(0x42), 0x10);
        bench.out(0x43, 0x90);
        bench.out(0x42, 0x10);
        assert_eq!(bench.inb(0x42), 0x10, "the low byte");
    }

    #[test]
    fn other_channels_and_widths_do_nothing() {
        let bench = Bench::new();
        bench.out(0x43, 0xb0);
        for word in [0x36, 0x76, 0x00, 0xc2, 0xe6] {
            bench.out(0x43, word);
        }
        let _none = bench.pit.write(0, &[1, 2]);
        bench.out(0x42, 7);
        bench.out(0x42, 0);
        assert_eq!([bench.inb(0x42), bench.inb(0x42)], [7, 0]);
        let mut word = [0; 2];
        bench.pit.read(0, &mut word);
        assert_eq!((word, bench.inb(0x43)), ([0xff; 2], 0xff));
    }

    #[test]
    fn port_61_keeps_what_is_written_and_tells_of_no_error() {
        let bench = Bench::new();
        bench.out(0x61, 0xff);
        let refresh = 0x10;
        assert_eq!(bench.inb(0x61) & !refresh, 0x2f);
        let seen = bench.inb(0x61) & refresh;
        bench.wait(15);
        bench.nanos.fetch_add(85, Ordering::Relaxed);
        assert_eq!(bench.inb(0x61) & refresh, seen ^ refresh);
    }
}

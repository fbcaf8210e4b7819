//! The PC's interval timer (8254). Kernels that know no other clock measure their CPU's against its third channel: they
//! open its gate at port 0x61, load a count at 0x42 and wait for its output at 0x61. Linux under KVM knows better and
//! leaves it alone.
//!
//! No channel raises an interrupt: the interrupt controller of the PC's first years is missing, and the ACPI tables say
//! so. The first two count all the same, so that a kernel which waits by reading a count does not wait forever.

use std::array;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitfield_struct::bitfield;

use super::channel::{Channel, ControlWord};
use super::rtc::Clock;
use crate::lock::lock;
use crate::{Device, Effect};

/// Offset of the port for control words; the channels' ports are those before it.
const CONTROL: u64 = 3;
const CHANNELS: usize = 3;

/// The channel whose gate and output are at port 0x61. The gates of the others are always high.
const SPEAKER: usize = 2;

/// The memory refresh, whose bit kernels have taken for a clock, turns every 15 microseconds.
const REFRESH_NANOS: u128 = 15_085;

/// The read-back command ("Read-Back Command Format"), whose upper bits are a control word's.
#[bitfield(u8)]
struct ReadBack {
    _reserved: bool,
    /// A bit for each.
    #[bits(3)]
    channels: u8,
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

/// The channels and their control word, at ports 0x40 to 0x43.
pub struct Pit {
    clock: Clock,
    core: Mutex<Core>,
}

struct Core {
    channels: [Channel; CHANNELS],
    /// The bits of port 0x61 that only keep what was written.
    kept: SystemControlBits,
}

impl Pit {
    /// Number of ports.
    pub const PORTS: u64 = CONTROL + 1;

    /// A timer as a PC's firmware leaves it; `clock` says the time since any moment.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let now = clock();
        let core = Core {
            channels: array::from_fn(|channel| match channel {
                SPEAKER => Channel::new(),
                _ => Channel::running(now),
            }),
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
        let now = (self.clock)();
        let mut core = lock(&self.core);
        match (core.channel(offset), data) {
            (Some(channel), [byte]) => *byte = channel.read(now),
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let now = (self.clock)();
        let mut core = lock(&self.core);
        match (offset, data) {
            (CONTROL, [byte]) => core.command(*byte, now),
            (_, [byte]) => {
                if let Some(channel) = core.channel(offset) {
                    channel.write(*byte, now);
                }
            }
            _ => {}
        }
        Effect::None
    }
}

impl Core {
    fn channel(&mut self, number: u64) -> Option<&mut Channel> {
        self.channels.get_mut(usize::try_from(number).ok()?)
    }

    fn command(&mut self, byte: u8, now: Duration) {
        let word = ControlWord::from_bits(byte);
        if let Some(channel) = self.channel(word.channel().into()) {
            return channel.command(word, now);
        }
        let command = ReadBack::from_bits(byte);
        let wanted = |(number, _): &(usize, &mut Channel)| command.channels() & (1 << number) != 0;
        for (_, channel) in self.channels.iter_mut().enumerate().filter(wanted) {
            if !command.no_count() {
                channel.latch_count(now);
            }
            if !command.no_status() {
                channel.latch_status(now);
            }
        }
    }
}

/// The gate and the output of the third channel, at port 0x61 among what else a PC has there.
pub struct SystemControl(Arc<Pit>);

impl SystemControl {
    /// Number of ports.
    pub const PORTS: u64 = 1;

    /// The port of this timer.
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
            .with_gate(core.channels[SPEAKER].gate())
            .with_refresh(now.as_nanos() / REFRESH_NANOS % 2 == 1)
            .with_output(core.channels[SPEAKER].output(now));
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
            core.channels[SPEAKER].set_gate(bits.gate(), now);
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
                _ => self.pit.write(u64::from(port - 0x40), &[byte]),
            };
        }

        fn inb(&self, port: u16) -> u8 {
            let mut byte = [0];
            match port {
                0x61 => self.control.read(0, &mut byte),
                _ => self.pit.read(u64::from(port - 0x40), &mut byte),
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
    fn channels_do_not_disturb_each_other() {
        let bench = Bench::new();
        bench.out(0x43, 0xb0);
        for word in [0x36, 0x76, 0x00, 0xc2, 0xe6] {
            bench.out(0x43, word);
        }
        bench.out(0x40, 9);
        bench.out(0x42, 7);
        bench.out(0x40, 0);
        bench.out(0x42, 0);
        assert_eq!([bench.inb(0x42), bench.inb(0x42)], [7, 0]);
    }

    #[test]
    fn other_widths_and_the_control_port_read_as_ones() {
        let bench = Bench::new();
        bench.out(0x43, 0xb0);
        let _none = bench.pit.write(2, &[1, 2]);
        bench.out(0x42, 7);
        bench.out(0x42, 0);
        assert_eq!([bench.inb(0x42), bench.inb(0x42)], [7, 0]);
        let mut word = [0; 2];
        bench.pit.read(2, &mut word);
        assert_eq!((word, bench.inb(0x43)), ([0xff; 2], 0xff));
    }

    /// What a kernel does that waits by the first channel without a word to it: it latches the count, again and again.
    #[test]
    fn the_first_channel_counts_from_the_start() {
        let bench = Bench::new();
        let latched = || {
            bench.out(0x43, 0x00);
            u16::from_le_bytes([bench.inb(0x40), bench.inb(0x40)])
        };
        let (first, _) = (latched(), bench.wait(1000));
        assert_eq!(first.wrapping_sub(latched()), 2 * 1193, "by twos, as mode 3 does");
        bench.out(0x43, 0xc2);
        assert_eq!(
            bench.inb(0x40) & 0x7f,
            0x36,
            "both bytes, mode 3, a count is there"
        );
    }

    #[test]
    fn read_back_latches_all_channels_at_once() {
        let bench = Bench::new();
        bench.out(0x43, 0xb4);
        bench.out(0x42, 5);
        bench.out(0x42, 0);
        bench.out(0x43, 0xde);
        bench.wait(1000);
        assert_eq!([bench.inb(0x40), bench.inb(0x40)], [0, 0]);
        assert_eq!([bench.inb(0x41), bench.inb(0x41)], [0, 0]);
        assert_eq!([bench.inb(0x42), bench.inb(0x42)], [5, 0]);
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

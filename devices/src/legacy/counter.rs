//! A counter of the interval timer: what it counts, and what its output is at any moment. It is worked out from the
//! time when somebody asks; nothing runs meanwhile.

use std::time::Duration;

/// Counts in a second: the PC's crystal of 14.31818 MHz by twelve.
const HERTZ: u128 = 1_193_182;

/// How it counts (8254 data sheet, "Mode Definitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 0: the output rises at the end of the count and stays.
    TerminalCount,
    /// 1: the output is low for the count, from the gate's rise on.
    OneShot,
    /// 2: the output is low for the last tick of each count.
    Rate,
    /// 3: the output is low for the second half of each count.
    SquareWave,
    /// 4: the output is low for one tick at the end of the count.
    SoftwareStrobe,
    /// 5: the same, from the gate's rise on.
    HardwareStrobe,
}

impl Mode {
    /// From the three bits of a control word, of which the first does not matter for modes 2 and 3.
    pub(super) fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    /// Whether it waits for the gate to rise.
    fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }

    /// Whether it starts again by itself.
    fn is_periodic(self) -> bool {
        matches!(self, Self::Rate | Self::SquareWave)
    }
}

/// A counter.
#[derive(Debug)]
pub(super) struct Counter {
    mode: Mode,
    /// Counts in decimal digits.
    is_decimal: bool,
    /// What it counts down from: 1 to 65,536.
    count: Option<u64>,
    gate: bool,
    progress: Progress,
}

/// How far a count has come.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Not begun.
    Waiting,
    /// It would have been at its start at this time.
    Since(Duration),
    /// Held by the gate after so many ticks.
    Held(u64),
}

impl Counter {
    /// One whose gate is low and that was told nothing yet.
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::SquareWave,
            is_decimal: false,
            count: None,
            gate: false,
            progress: Progress::Waiting,
        }
    }

    /// Takes a mode; it counts when it has a count.
    pub(super) fn program(&mut self, mode: Mode, is_decimal: bool) {
        (self.mode, self.is_decimal) = (mode, is_decimal);
        (self.count, self.progress) = (None, Progress::Waiting);
    }

    /// Takes a count, as it was written; zero is the largest.
    pub(super) fn load(&mut self, written: u16, now: Duration) {
        let count = if self.is_decimal {
            from_decimal(written)
        } else {
            u64::from(written)
        };
        self.count = Some(if count == 0 { self.modulus() } else { count });
        self.progress = match (self.mode.is_triggered(), self.gate) {
            (true, _) => Progress::Waiting,
            (false, true) => Progress::Since(now),
            (false, false) => Progress::Held(0),
        };
    }

    /// Whether it was told a mode and waits for a count.
    pub(super) fn wants_count(&self) -> bool {
        self.count.is_none()
    }

    /// Sets the gate.
    pub(super) fn set_gate(&mut self, gate: bool, now: Duration) {
        let (was, is) = (self.gate, gate);
        self.gate = gate;
        if was == is || self.count.is_none() {
            return;
        }
        self.progress = match (self.progress, is) {
            _ if self.mode.is_triggered() && !is => return,
            (_, true) if self.mode.is_triggered() || self.mode.is_periodic() => Progress::Since(now),
            (Progress::Held(ticks), true) => Progress::Since(now.saturating_sub(duration(ticks))),
            (progress, true) => progress,
            (_, false) => Progress::Held(self.ticks(now).unwrap_or(0)),
        };
    }

    /// The gate, as it was set.
    pub(super) fn gate(&self) -> bool {
        self.gate
    }

    /// The output.
    pub(super) fn output(&self, now: Duration) -> bool {
        let (Some(count), Some(ticks)) = (self.count, self.ticks(now)) else {
            return self.mode != Mode::TerminalCount;
        };
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => ticks >= count,
            Mode::Rate => !self.gate || ticks % count != count - 1,
            Mode::SquareWave => !self.gate || ticks % count < count.div_ceil(2),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => ticks != count,
        }
    }

    /// The count as it is read.
    pub(super) fn value(&self, now: Duration) -> u16 {
        let count = self.count.unwrap_or(0);
        let ticks = self.ticks(now).unwrap_or(0);
        let left = match self.mode {
            Mode::Rate => count - ticks % count.max(1),
            // By twos, twice in each period.
            Mode::SquareWave => (count & !1).saturating_sub(2 * (ticks % count.div_ceil(2).max(1))),
            // On past the end.
            _ => (count + self.modulus() - ticks % self.modulus()) % self.modulus(),
        };
        let left = left % self.modulus();
        if self.is_decimal {
            to_decimal(left)
        } else {
            low_16(left)
        }
    }

    /// Ticks of the count so far; `None` before it has begun.
    fn ticks(&self, now: Duration) -> Option<u64> {
        match self.progress {
            Progress::Waiting => None,
            Progress::Held(ticks) => Some(ticks),
            Progress::Since(start) => Some(ticks(now.saturating_sub(start))),
        }
    }

    fn modulus(&self) -> u64 {
        if self.is_decimal { 10_000 } else { 0x1_0000 }
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * HERTZ / 1_000_000_000).unwrap_or(u64::MAX)
}

fn duration(ticks: u64) -> Duration {
    let nanos = (u128::from(ticks) * 1_000_000_000).div_ceil(HERTZ);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn low_16(value: u64) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

/// Four decimal digits of four bits each; what is no digit counts as it is.
fn from_decimal(written: u16) -> u64 {
    (0..4).rev().fold(0, |value, digit| {
        value * 10 + u64::from((written >> (4 * digit)) & 0xf)
    })
}

fn to_decimal(value: u64) -> u16 {
    (0..4).rev().fold(0, |written, digit| {
        (written << 4) | low_16(value / 10u64.pow(digit) % 10)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time of the end of a tick, counted from the start.
    fn at(ticks: u64) -> Duration {
        Duration::from_secs(5) + duration(ticks)
    }

    /// A counter with its gate up that started to count at tick 0.
    fn counting(mode: u8, count: u16) -> Counter {
        let mut counter = Counter::new();
        counter.set_gate(true, at(0));
        counter.program(Mode::from_bits(mode), false);
        counter.load(count, at(0));
        counter
    }

    #[test]
    fn terminal_count_rises_once_and_counts_on() {
        let counter = counting(0, 1000);
        let seen = [0, 999, 1000, 200_000].map(|tick| counter.output(at(tick)));
        assert_eq!(seen, [false, false, true, true]);
        assert_eq!(
            [0, 1, 1000, 1001].map(|tick| counter.value(at(tick))),
            [1000, 999, 0, 0xffff]
        );
    }

    #[test]
    fn a_low_gate_holds_a_count() {
        let mut counter = counting(0, 1000);
        counter.set_gate(false, at(400));
        assert_eq!(counter.value(at(9000)), 600);
        counter.set_gate(true, at(9000));
        let seen = [9599, 9600].map(|tick| counter.output(at(tick)));
        assert_eq!(seen, [false, true]);
    }

    #[test]
    fn one_shot_waits_for_the_gate_and_can_be_shot_again() {
        let mut counter = Counter::new();
        counter.program(Mode::from_bits(1), false);
        counter.load(100, at(0));
        assert!(counter.output(at(50)), "not shot yet");
        counter.set_gate(true, at(50));
        assert_eq!([149, 150].map(|tick| counter.output(at(tick))), [false, true]);
        counter.set_gate(false, at(200));
        counter.set_gate(true, at(300));
        assert_eq!([399, 400].map(|tick| counter.output(at(tick))), [false, true]);
    }

    #[test]
    fn rate_is_low_for_one_tick_of_each_period() {
        let counter = counting(2, 10);
        let low = (0..30)
            .filter(|tick| !counter.output(at(*tick)))
            .collect::<Vec<_>>();
        assert_eq!(low, [9, 19, 29]);
        assert_eq!([0, 9, 10].map(|tick| counter.value(at(tick))), [10, 1, 10]);
    }

    #[test]
    fn square_wave_is_low_for_half_of_each_period() {
        for (count, first_low) in [(10, 5), (11, 6)] {
            let counter = counting(3, count);
            let low = (0..u64::from(count)).filter(|tick| !counter.output(at(*tick)));
            assert_eq!(
                low.collect::<Vec<_>>(),
                (first_low..u64::from(count)).collect::<Vec<_>>()
            );
        }
        assert_eq!(
            [0, 1, 4, 5].map(|tick| counting(3, 10).value(at(tick))),
            [10, 8, 2, 10]
        );
    }

    #[test]
    fn periods_stop_at_a_low_gate_and_start_anew() {
        let mut counter = counting(2, 10);
        counter.set_gate(false, at(9));
        assert!(counter.output(at(9)), "the output is high while the gate is low");
        counter.set_gate(true, at(100));
        assert_eq!([108, 109].map(|tick| counter.output(at(tick))), [true, false]);
    }

    #[test]
    fn strobes_are_low_for_one_tick() {
        let counter = counting(4, 10);
        assert_eq!(
            [9, 10, 11].map(|tick| counter.output(at(tick))),
            [true, false, true]
        );
        let mut counter = Counter::new();
        counter.program(Mode::from_bits(5), false);
        counter.load(10, at(0));
        counter.set_gate(true, at(20));
        assert_eq!(
            [29, 30, 31].map(|tick| counter.output(at(tick) + Duration::from_nanos(1))),
            [true, false, true]
        );
    }

    #[test]
    fn zero_is_the_largest_count() {
        assert_eq!(
            [0xffff, 0x1_0000].map(|tick| counting(0, 0).output(at(tick))),
            [false, true]
        );
        let mut counter = counting(0, 0);
        counter.program(Mode::TerminalCount, true);
        counter.load(0, at(0));
        assert_eq!([9999, 10_000].map(|tick| counter.output(at(tick))), [false, true]);
        assert_eq!(counter.value(at(1)), 0x9999);
    }

    #[test]
    fn no_count_and_no_time_is_too_much() {
        for mode in 0..8 {
            for count in [0, 1, 2, 3, 0xffff] {
                let mut counter = counting(mode, count);
                for now in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
                    let _ = (counter.output(now), counter.value(now));
                    counter.set_gate(now == Duration::ZERO, now);
                }
            }
        }
    }

    #[test]
    fn a_second_has_1193182_ticks() {
        assert_eq!(ticks(Duration::from_secs(1)), 1_193_182);
        assert!((0..100_000).all(|tick| ticks(duration(tick)) == tick));
    }
}

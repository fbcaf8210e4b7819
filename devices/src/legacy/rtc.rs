//! The MC146818 real-time clock with its CMOS memory, at ports 0x70 (index) and 0x71 (data).
//!
//! It shows the host's time in UTC and lets the guest set its own: the difference is kept, the host's clock
//! is never touched. There are no alarm and no periodic interrupts, so there is no interrupt line; ACPI
//! describes the clock without one and Linux's rtc_cmos then asks for none.

use std::sync::Mutex;
use std::time::Duration;

use bitfield_struct::bitfield;

use crate::lock::lock;
use crate::{Device, Effect};

/// What time it is: the time since 1970-01-01 00:00 UTC.
pub type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// Offsets of the two ports.
const INDEX_PORT: u64 = 0;
const DATA_PORT: u64 = 1;

/// Indices of the registers (MC146818 data sheet, "Address map"; the century's place is the PC's habit and
/// is named in the FADT).
mod register {
    pub(super) const SECONDS: u8 = 0x00;
    pub(super) const MINUTES: u8 = 0x02;
    pub(super) const HOURS: u8 = 0x04;
    pub(super) const DAY_OF_WEEK: u8 = 0x06;
    pub(super) const DAY_OF_MONTH: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const A: u8 = 0x0a;
    pub(super) const B: u8 = 0x0b;
    pub(super) const C: u8 = 0x0c;
    pub(super) const D: u8 = 0x0d;
    pub(super) const CENTURY: u8 = 0x32;
}

/// Register A: a 32.768 kHz time base and a 1024 Hz rate; bit 7, update in progress, is never set.
const RESET_A: u8 = 0x26;
const A_WRITABLE: u8 = 0x7f;
/// Register C: no interrupt is ever pending.
const VALUE_C: u8 = 0;
/// Register D: the battery is good.
const VALUE_D: u8 = 0x80;
/// Bit 7 of a 12-hour clock's hours.
const PM: u8 = 0x80;
const SECONDS_PER_DAY: i64 = 86_400;

/// Register B: format of date and time, and the interrupts that are never raised (MC146818A data sheet).
#[bitfield(u8)]
struct ControlB {
    daylight_saving: bool,
    hours_24: bool,
    binary: bool,
    square_wave: bool,
    update_interrupt: bool,
    alarm_interrupt: bool,
    periodic_interrupt: bool,
    /// The guest is setting the time: the registers stand still.
    set: bool,
}

/// The clock and its 128 bytes of memory.
pub struct Rtc {
    clock: Clock,
    core: Mutex<Core>,
}

struct Core {
    index: u8,
    /// What the guest wrote. The time's own places are used only while the clock stands still.
    memory: [u8; 128],
    /// The guest's time minus the host's.
    offset_seconds: i64,
}

impl Rtc {
    /// Number of ports the clock takes: index and data.
    pub const PORTS: u64 = 2;
    /// Where the century is kept.
    pub const CENTURY_INDEX: u8 = register::CENTURY;

    /// A clock that starts with the time of `clock`.
    pub fn new(clock: Clock) -> Self {
        let mut memory = [0; 128];
        memory[usize::from(register::A)] = RESET_A;
        memory[usize::from(register::B)] = ControlB::new().with_hours_24(true).into_bits();
        Self {
            clock,
            core: Mutex::new(Core {
                index: 0,
                memory,
                offset_seconds: 0,
            }),
        }
    }

    fn host_seconds(&self) -> i64 {
        i64::try_from((self.clock)().as_secs()).unwrap_or(0)
    }
}

impl Device for Rtc {
    fn name(&self) -> &str {
        "rtc"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let core = lock(&self.core);
        match (offset, data) {
            (DATA_PORT, [byte]) => *byte = core.read(self.host_seconds()),
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut core = lock(&self.core);
        match (offset, data) {
            // Bit 7 of the index port masks NMIs on a PC; it does not belong to the clock.
            (INDEX_PORT, [index]) => core.index = index & 0x7f,
            (DATA_PORT, [value]) => core.write(*value, self.host_seconds()),
            _ => {}
        }
        Effect::None
    }
}

impl Core {
    fn read(&self, host_seconds: i64) -> u8 {
        match self.index {
            register::C => VALUE_C,
            register::D => VALUE_D,
            index if is_time(index) && !self.control().set() => {
                let time = DateTime::from_seconds(host_seconds.saturating_add(self.offset_seconds));
                time.register(index, self.control())
            }
            index => self.memory[usize::from(index)],
        }
    }

    fn write(&mut self, value: u8, host_seconds: i64) {
        match self.index {
            register::A => self.memory[usize::from(register::A)] = value & A_WRITABLE,
            register::B => self.write_control(value, host_seconds),
            register::C | register::D => {}
            index if is_time(index) && !self.control().set() => {
                self.stop(host_seconds);
                self.memory[usize::from(index)] = value;
                self.start(host_seconds);
            }
            index => self.memory[usize::from(index)] = value,
        }
    }

    fn write_control(&mut self, value: u8, host_seconds: i64) {
        let was_set = self.control().set();
        if !was_set {
            self.stop(host_seconds);
        }
        self.memory[usize::from(register::B)] = value;
        if was_set && !self.control().set() {
            self.start(host_seconds);
        }
    }

    /// Copies the running time into memory.
    fn stop(&mut self, host_seconds: i64) {
        let time = DateTime::from_seconds(host_seconds.saturating_add(self.offset_seconds));
        let control = self.control();
        for index in (0..=u8::MAX)
            .take(self.memory.len())
            .filter(|index| is_time(*index))
        {
            self.memory[usize::from(index)] = time.register(index, control);
        }
    }

    /// Lets the clock run on from the time in memory.
    fn start(&mut self, host_seconds: i64) {
        let time = DateTime::from_registers(&self.memory, self.control());
        self.offset_seconds = time.to_seconds().saturating_sub(host_seconds);
    }

    fn control(&self) -> ControlB {
        ControlB::from_bits(self.memory[usize::from(register::B)])
    }
}

fn is_time(index: u8) -> bool {
    use register::{CENTURY, DAY_OF_MONTH, DAY_OF_WEEK, HOURS, MINUTES, MONTH, SECONDS, YEAR};
    matches!(
        index,
        SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY_OF_MONTH | MONTH | YEAR | CENTURY
    )
}

/// A date and time of the proleptic Gregorian calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DateTime {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl DateTime {
    fn from_seconds(seconds: i64) -> Self {
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        Self {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    fn to_seconds(self) -> i64 {
        let days = days_from_civil(self.year, self.month, self.day);
        days * SECONDS_PER_DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    fn register(self, index: u8, control: ControlB) -> u8 {
        let encode = |value: i64| encode(value, control);
        match index {
            register::SECONDS => encode(self.second),
            register::MINUTES => encode(self.minute),
            register::HOURS if control.hours_24() => encode(self.hour),
            register::HOURS => {
                let twelve = if self.hour % 12 == 0 { 12 } else { self.hour % 12 };
                encode(twelve) | if self.hour >= 12 { PM } else { 0 }
            }
            // 1970-01-01 was a Thursday; Sunday counts as 1.
            register::DAY_OF_WEEK => {
                encode((days_from_civil(self.year, self.month, self.day) + 4).rem_euclid(7) + 1)
            }
            register::DAY_OF_MONTH => encode(self.day),
            register::MONTH => encode(self.month),
            register::YEAR => encode(self.year.rem_euclid(100)),
            _ => encode(self.year.div_euclid(100)),
        }
    }

    fn from_registers(memory: &[u8; 128], control: ControlB) -> Self {
        let decode = |index: u8| decode(memory[usize::from(index)], control);
        let hours = memory[usize::from(register::HOURS)];
        let hour = if control.hours_24() {
            decode(register::HOURS)
        } else {
            let afternoon = if hours & PM != 0 { 12 } else { 0 };
            self::decode(hours & !PM, control) % 12 + afternoon
        };
        Self {
            year: decode(register::CENTURY) * 100 + decode(register::YEAR),
            month: decode(register::MONTH),
            day: decode(register::DAY_OF_MONTH),
            hour,
            minute: decode(register::MINUTES),
            second: decode(register::SECONDS),
        }
    }
}

fn encode(value: i64, control: ControlB) -> u8 {
    let value = u8::try_from(value).unwrap_or(0);
    if control.binary() {
        value
    } else {
        ((value / 10 % 10) << 4) | (value % 10)
    }
}

fn decode(value: u8, control: ControlB) -> i64 {
    i64::from(if control.binary() {
        value
    } else {
        (value >> 4) * 10 + (value & 0xf)
    })
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is a year's last. A month or
/// day out of range, which only a guest can write, counts on from there.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let months = year * 12 + month - 3;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The inverse: year, month 1 to 12, day 1 to 31.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// 2024-02-29 23:59:58 UTC, a Thursday.
    const LEAP_DAY: u64 = 1_709_251_198;

    fn rtc_at(seconds: u64) -> (Rtc, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(seconds));
        let clock = Arc::clone(&now);
        (
            Rtc::new(Box::new(move || {
                Duration::from_secs(clock.load(Ordering::Relaxed))
            })),
            now,
        )
    }

    fn read(rtc: &Rtc, index: u8) -> u8 {
        let mut data = [0];
        let _ = rtc.write(0, &[index]);
        rtc.read(1, &mut data);
        data[0]
    }

    fn write(rtc: &Rtc, index: u8, value: u8) {
        let _ = rtc.write(0, &[index]);
        let _ = rtc.write(1, &[value]);
    }

    fn time(rtc: &Rtc) -> [u8; 8] {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map(|index| read(rtc, index))
    }

    #[test]
    fn shows_the_host_time_in_bcd_as_linux_finds_it() {
        let (rtc, _) = rtc_at(LEAP_DAY);
        assert_eq!(time(&rtc), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58, 5]);
        assert_eq!(read(&rtc, 0x0a) & 0x80, 0, "no update is in progress");
        assert_eq!(read(&rtc, 0x0b), 0x02, "24 hours, BCD");
        assert_eq!(read(&rtc, 0x0c), 0);
        assert_eq!(read(&rtc, 0x0d), 0x80);
    }

    #[test]
    fn shows_binary_and_12_hours_when_asked() {
        let (rtc, _) = rtc_at(LEAP_DAY);
        write(&rtc, 0x0b, 0x04);
        assert_eq!(time(&rtc), [20, 24, 2, 29, 11 | 0x80, 59, 58, 5]);
    }

    #[test]
    fn midnight_is_12_am() {
        let (rtc, _) = rtc_at(0);
        write(&rtc, 0x0b, 0x00);
        assert_eq!(read(&rtc, 4), 0x12);
    }

    #[test]
    fn runs_on_from_the_time_the_guest_set() {
        let (rtc, now) = rtc_at(LEAP_DAY);
        write(&rtc, 0x0b, 0x82);
        for (index, value) in [
            (0x32, 0x19),
            (9, 0x99),
            (8, 0x12),
            (7, 0x31),
            (4, 0x23),
            (2, 0x59),
            (0, 0x57),
        ] {
            write(&rtc, index, value);
        }
        now.fetch_add(100, Ordering::Relaxed);
        assert_eq!(read(&rtc, 0), 0x57, "the clock stands still while it is set");
        write(&rtc, 0x0b, 0x02);
        now.fetch_add(3, Ordering::Relaxed);
        assert_eq!(time(&rtc), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 7]);
    }

    #[test]
    fn a_single_field_can_be_set_while_running() {
        let (rtc, _) = rtc_at(LEAP_DAY);
        write(&rtc, 9, 0x30);
        assert_eq!(
            time(&rtc)[..4],
            [0x20, 0x30, 0x03, 0x01],
            "2030 has no 29 February"
        );
    }

    #[test]
    fn memory_keeps_what_was_written_and_read_only_registers_do_not() {
        let (rtc, _) = rtc_at(LEAP_DAY);
        write(&rtc, 0x0f, 0x0a);
        write(&rtc, 0x8f, 0x0b);
        write(&rtc, 0x0a, 0xff);
        write(&rtc, 0x0c, 0xff);
        write(&rtc, 0x0d, 0x00);
        assert_eq!(
            [0x0f, 0x0a, 0x0c, 0x0d].map(|index| read(&rtc, index)),
            [0x0b, 0x7f, 0, 0x80]
        );
    }

    #[test]
    fn wrong_widths_read_ones_and_write_nothing() {
        let (rtc, _) = rtc_at(LEAP_DAY);
        let mut data = [0; 2];
        rtc.read(0, &mut data);
        assert_eq!(data, [0xff; 2]);
        write(&rtc, 0x0f, 1);
        let _ = rtc.write(0, &[0x0f, 2]);
        assert_eq!(read(&rtc, 0x0f), 1);
    }

    proptest! {
        #[test]
        fn dates_survive_the_round_trip(seconds in -70_000_000_000i64..400_000_000_000) {
            prop_assert_eq!(DateTime::from_seconds(seconds).to_seconds(), seconds);
        }

        #[test]
        fn any_sequence_of_writes_is_survived(
            writes in prop::collection::vec((any::<u8>(), any::<u8>()), 0..200), seconds in any::<u64>()
        ) {
            let (rtc, _) = rtc_at(seconds);
            for (index, value) in writes {
                write(&rtc, index, value);
                let _ = read(&rtc, index);
            }
        }
    }
}

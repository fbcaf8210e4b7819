//! The log, with a limit to each line that a guest or a device can cause again and again.
//!
//! The limit holds for each place in the code that says something, so there are as many limits as places:
//! a start with many devices is told in full, a line that is repeated without end only once a second, and what
//! was left out is counted.

use std::collections::HashMap;
use std::fmt::Arguments;
use std::io::Write;
use std::mem;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use env_logger::{Builder, Env, Logger, Target};
use log::{Level, Log, Metadata, Record};
use strait_devices::lock;

/// Lines that a place says one after the other: eight regions of each of 31 devices.
const BURST: u32 = 256;
/// After them it says one line in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the log of this process on `target`: warnings, and more for each `-v`.
pub fn start(verbose: u8, target: Target) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    // What gdb asks for and gdbstub does not know is no news to the user.
    let env = Env::new().filter_or("STRAIT_LOG", format!("{level},gdbstub=warn"));
    let messages = Messages::new(Builder::from_env(env), target);
    log::set_max_level(messages.logger.filter());
    // Only a second start fails, and there is none.
    let _ = log::set_boxed_logger(Box::new(messages));
}

struct Messages {
    logger: Logger,
    places: Mutex<HashMap<Place, Allowance>>,
}

/// A module and a line in it.
type Place = (&'static str, u32);

/// How many lines a place may still say, and those that it could not.
struct Allowance {
    lines: u32,
    /// The time up to which `lines` was paid.
    paid_until: Instant,
    left_out: Option<LeftOut>,
}

/// Lines that were not said.
struct LeftOut {
    count: u64,
    level: Level,
    /// The first of them.
    sample: String,
}

impl Messages {
    fn new(mut builder: Builder, target: Target) -> Self {
        builder.target(target).format(|line, record| {
            let level = record.level().as_str().to_lowercase();
            writeln!(line, "strait: {level}: {}", record.args())
        });
        Self {
            logger: builder.build(),
            places: Mutex::default(),
        }
    }

    fn log_at(&self, record: &Record<'_>, now: Instant) {
        // `-vvv` asks for each access of the guest, and a limit would hide some.
        if record.level() == Level::Trace {
            return self.logger.log(record);
        }
        let place = (
            record.module_path_static().unwrap_or_default(),
            record.line().unwrap_or_default(),
        );
        let mut places = self.lock();
        let allowance = places.entry(place).or_insert_with(|| Allowance::new(now));
        if !allowance.take_line(now) {
            return allowance.leave_out(record);
        }
        let left_out = allowance.left_out.take();
        // A slow target makes nobody wait who only wants to know whether he may speak.
        drop(places);
        if let Some(LeftOut { count, .. }) = left_out {
            self.say(
                record.metadata(),
                format_args!("{count} lines like the next one were left out"),
            );
        }
        self.logger.log(record);
    }

    fn say(&self, of: &Metadata<'_>, text: Arguments<'_>) {
        let record = Record::builder().metadata(of.clone()).args(text).build();
        self.logger.log(&record);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Allowance>> {
        lock(&self.places)
    }
}

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.logger.matches(record) {
            self.log_at(record, Instant::now());
        }
    }

    /// The end: says what was left out and not told yet.
    fn flush(&self) {
        for ((module, _), allowance) in mem::take(&mut *self.lock()) {
            if let Some(LeftOut { count, level, sample }) = allowance.left_out {
                let of = Metadata::builder().level(level).target(module).build();
                self.say(
                    &of,
                    format_args!("{count} lines like this were left out: {sample}"),
                );
            }
        }
    }
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            lines: BURST,
            paid_until: now,
            left_out: None,
        }
    }

    fn take_line(&mut self, now: Instant) -> bool {
        // Threads take their time before they take the lock, so `now` may be earlier than the last one.
        let pauses = now.saturating_duration_since(self.paid_until).as_secs() / PAUSE.as_secs();
        let earned = u32::try_from(pauses).unwrap_or(BURST).min(BURST - self.lines);
        self.lines += earned;
        self.paid_until = match self.lines {
            BURST => now,
            _ => self.paid_until + PAUSE * earned,
        };
        let may = self.lines > 0;
        self.lines -= u32::from(may);
        may
    }

    fn leave_out(&mut self, record: &Record<'_>) {
        let left_out = self.left_out.get_or_insert_with(|| LeftOut {
            count: 0,
            level: record.level(),
            sample: record.args().to_string(),
        });
        left_out.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};

    use log::LevelFilter;

    use super::*;

    const WARNS: Place = ("warns", 7);

    fn messages() -> (Messages, PipeReader) {
        let (reader, writer) = pipe().expect("a pipe");
        let mut builder = Builder::new();
        builder.filter_level(LevelFilter::Trace);
        (Messages::new(builder, Target::Pipe(Box::new(writer))), reader)
    }

    fn repeat(messages: &Messages, (module, line): Place, level: Level, times: usize, now: Instant) {
        let mut record = Record::builder();
        record
            .level(level)
            .module_path_static(Some(module))
            .line(Some(line));
        for _ in 0..times {
            messages.log_at(&record.args(format_args!("again")).build(), now);
        }
    }

    /// All that was said.
    fn said((messages, mut reader): (Messages, PipeReader)) -> Vec<String> {
        drop(messages);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_thousand_lines_of_one_place_are_a_burst() {
        let log = messages();
        repeat(&log.0, WARNS, Level::Warn, 1000, Instant::now());
        assert_eq!(said(log), ["strait: warn: again"; BURST as usize]);
    }

    #[test]
    fn then_there_is_one_line_a_pause_and_the_rest_is_counted() {
        let (log, now) = (messages(), Instant::now());
        repeat(&log.0, WARNS, Level::Warn, 1000, now);
        repeat(&log.0, WARNS, Level::Warn, 1000, now + PAUSE * 3 / 2);
        repeat(&log.0, WARNS, Level::Warn, 1, now + PAUSE * 2);
        let lines = said(log);
        assert_eq!(
            lines[BURST as usize..],
            [
                "strait: warn: 744 lines like the next one were left out",
                "strait: warn: again",
                "strait: warn: 999 lines like the next one were left out",
                "strait: warn: again",
            ]
        );
    }

    #[test]
    fn who_was_quiet_may_say_a_burst_again_and_no_more() {
        let (log, now) = (messages(), Instant::now());
        repeat(&log.0, WARNS, Level::Warn, BURST as usize, now);
        repeat(&log.0, WARNS, Level::Warn, 1000, now + PAUSE * 2 * BURST);
        assert_eq!(said(log).len(), 2 * BURST as usize);
    }

    #[test]
    fn a_place_that_says_too_much_silences_no_other() {
        let (log, now) = (messages(), Instant::now());
        repeat(&log.0, WARNS, Level::Warn, 1000, now);
        repeat(&log.0, ("warns", 8), Level::Error, 1, now);
        assert_eq!(said(log).last().map(String::as_str), Some("strait: error: again"));
    }

    #[test]
    fn the_end_says_what_was_left_out() {
        let log = messages();
        repeat(&log.0, WARNS, Level::Info, 1000, Instant::now());
        log.0.flush();
        log.0.flush();
        assert_eq!(
            said(log)[BURST as usize..],
            ["strait: info: 744 lines like this were left out: again"]
        );
    }

    #[test]
    fn who_asks_for_every_access_gets_every_access() {
        let log = messages();
        repeat(&log.0, WARNS, Level::Trace, 1000, Instant::now());
        assert_eq!(said(log).len(), 1000);
    }
}

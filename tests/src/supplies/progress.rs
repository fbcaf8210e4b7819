//! Says what takes time, on stderr: one line per step, with a counter that moves on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Runs one named step and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    eprint!("  {what} ...");
    let _ = io::stderr().flush();
    let result = work();
    match &result {
        Ok(_) => eprintln!(" {:.1} s", start.elapsed().as_secs_f64()),
        Err(_) => eprintln!(" failed"),
    }
    result
}

/// A counter towards a known total.
pub(crate) struct Counter {
    what: &'static str,
    unit: &'static str,
    total: u64,
    shown: Option<Instant>,
    start: Instant,
}

impl Counter {
    /// Starts a counter; `unit` follows the numbers.
    pub(crate) fn new(what: &'static str, total: u64, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            total,
            // The first line elsewhere comes after the first pause: most steps are shorter.
            shown: (!io::stderr().is_terminal()).then(Instant::now),
            start: Instant::now(),
        }
    }

    /// Shows how far it is: ten times a second on a terminal, every ten seconds elsewhere.
    pub(crate) fn show(&mut self, done: u64) {
        let terminal = io::stderr().is_terminal();
        let pause = Duration::from_millis(if terminal { 100 } else { 10_000 });
        if self.shown.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let begin = if terminal { "\r" } else { "" };
        let end = if terminal { "" } else { "\n" };
        let Self {
            what, unit, total, ..
        } = self;
        eprint!("{begin}  {what}: {done} of {total} {unit}{end}");
        let _ = io::stderr().flush();
    }

    /// Closes the line.
    pub(crate) fn finish(self) {
        let begin = if io::stderr().is_terminal() { "\r" } else { "" };
        let Self {
            what, unit, total, ..
        } = self;
        let seconds = self.start.elapsed().as_secs_f64();
        eprintln!("{begin}  {what}: {total} {unit}, {seconds:.1} s   ");
    }
}

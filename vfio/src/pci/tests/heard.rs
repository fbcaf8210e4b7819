//! What the log hears while a test listens.

use std::cell::RefCell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps warnings and errors by the thread that caused them.
struct Listener;

impl Log for Listener {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        HEARD.with_borrow_mut(|heard| heard.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Runs `work`; what was warned of meanwhile.
pub(super) fn heard(work: impl FnOnce()) -> Vec<String> {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Listener).expect("no other test sets a logger");
        log::set_max_level(LevelFilter::Warn);
    });
    HEARD.take();
    work();
    HEARD.take()
}

//! Taking the guest's RAM from the host, which a user sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::RunError;
use crate::memory::GuestRam;
use crate::output::{Output, Writer};
use crate::progress::{Pages, Progress, Style};
use crate::signals::Ended;

/// RAM that is there, with the time that it took.
pub(super) struct Populated {
    progress: Progress<Writer>,
    ranges: Vec<(u64, u64)>,
}

impl Populated {
    /// Nothing is left to do with it.
    pub(super) fn finish(self) {
        let Self { progress, ranges } = self;
        progress.finish(Instant::now(), || Pages::of(&ranges));
    }
}

/// Takes all of it from the host. Where that takes long the user sees how far it is. Behind each piece `go_on` is told how long
/// the rest will take, and may end it.
///
/// # Errors
/// When the host has no memory left, or it was ended.
pub(super) fn populate(
    ram: &GuestRam,
    messages: Arc<Output>,
    style: Style,
    go_on: &dyn Fn(Duration) -> Result<(), Ended>,
) -> Result<Populated, RunError> {
    let ranges = ram.host_ranges();
    let total = ranges.iter().map(|(start, end)| end - start).sum();
    let start = Instant::now();
    let mut progress = Progress::new(Writer(messages), style, total, start);
    let mut done = 0;
    ram.populate(|bytes| {
        let now = Instant::now();
        progress.advance(bytes, now);
        done += bytes;
        let left = (total - done) as f64 / done as f64;
        Ok::<(), RunError>(go_on((now - start).mul_f64(left))?)
    })?;
    Ok(Populated { progress, ranges })
}

//! Taking the guest's RAM from the host, which a user sees.

use std::sync::Arc;
use std::time::Instant;

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

/// Takes all of it from the host. Where that takes long the user sees how far it is; between two pieces `go_on` may end it.
///
/// # Errors
/// When the host has no memory left, or it was ended.
pub(super) fn populate(
    ram: &GuestRam,
    messages: Arc<Output>,
    style: Style,
    go_on: &dyn Fn() -> Result<(), Ended>,
) -> Result<Populated, RunError> {
    let ranges = ram.host_ranges();
    let total = ranges.iter().map(|(start, end)| end - start).sum();
    let mut progress = Progress::new(Writer(messages), style, total, Instant::now());
    ram.populate(|bytes| {
        progress.advance(bytes, Instant::now());
        Ok::<(), RunError>(go_on()?)
    })?;
    Ok(Populated { progress, ranges })
}

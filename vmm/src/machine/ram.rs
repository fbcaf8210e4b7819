//! Taking the guest's RAM from the host, which a user sees.

use std::time::Instant;

use super::error::RunError;
use crate::memory::GuestRam;
use crate::output::Writer;
use crate::progress::{Pages, Progress, Style};
use crate::user::User;

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

/// Takes all of it from the host. Where that takes long the user sees how far it is, and between two pieces may end it.
///
/// # Errors
/// When the host has no memory left, or a signal ends the start.
pub(super) fn populate(ram: &GuestRam, user: &User) -> Result<Populated, RunError> {
    let ranges = ram.host_ranges();
    let total = ranges.iter().map(|(start, end)| end - start).sum();
    let out = Writer(user.outputs.messages.clone());
    let mut progress = Progress::new(out, Style::of_stderr(), total, Instant::now());
    ram.populate(|bytes| {
        progress.advance(bytes, Instant::now());
        Ok::<(), RunError>(user.signals.go_on()?)
    })?;
    Ok(Populated { progress, ranges })
}

//! Warnings that a guest can cause, or a device that has died.

use std::sync::atomic::{AtomicBool, Ordering};

/// Lets the first of them through: the log belongs to the host's operator.
#[derive(Debug, Default)]
pub struct FirstOnly(AtomicBool);

impl FirstOnly {
    /// True the first time.
    #[must_use]
    pub fn pass(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

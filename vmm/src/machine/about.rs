//! What a guest was made as.

use std::time::Instant;

use crate::config::Config;
use crate::guests::GuestName;

/// Facts that stay as they are for as long as the guest runs.
pub(super) struct About {
    /// By which it is found.
    pub(super) name: Option<GuestName>,
    pub(super) memory_bytes: u64,
    /// When its machine was built.
    pub(super) began: Instant,
}

impl About {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            name: config.name.clone(),
            memory_bytes: config.memory.size.bytes(),
            began: Instant::now(),
        }
    }
}

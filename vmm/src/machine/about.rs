//! What a guest was made as.

use std::time::Instant;

use serde_json::Value;

use crate::config::Config;
use crate::guests::GuestName;
use crate::memory::RamSource;

/// Facts that stay as they are for as long as the guest runs.
pub(super) struct About {
    /// By which it is found.
    pub(super) name: Option<GuestName>,
    pub(super) memory_bytes: u64,
    /// What RAM is made of.
    pub(super) memory: Value,
    /// When its machine was built.
    pub(super) began: Instant,
}

impl About {
    pub(super) fn new(config: &Config, ram: &RamSource) -> Self {
        Self {
            name: config.name.clone(),
            memory_bytes: config.memory.size.bytes(),
            memory: ram.tell(),
            began: Instant::now(),
        }
    }
}

//! What ends a run.

use std::error::Error;

/// Anything that ends a run; messages are for users.
pub type RunError = Box<dyn Error + Send + Sync>;

//! Whoever runs the machine.

use std::sync::Arc;

use crate::output::Outputs;
use crate::signals::Signals;

/// What the user asks for, and where he is told something.
pub struct User {
    /// SIGINT, SIGTERM, SIGHUP and SIGUSR1, taken over from the start on.
    pub signals: Arc<Signals>,
    /// His terminal, or where else his outputs go.
    pub outputs: Arc<Outputs>,
}

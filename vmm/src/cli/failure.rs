//! The end of a command that could not do what it was asked for.

use std::error::Error;

use strait_devices::Chain;

/// Wrong usage, as clap has it.
pub const USAGE: u8 = 2;

/// The message and the exit code of a command that failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code of the process.
    pub code: u8,
    /// The sentence for the user, without the name of the program.
    pub message: String,
}

impl Failure {
    /// A failure because what was typed cannot be meant.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            message: message.into(),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: 1,
            message: Chain(&error).to_string(),
        }
    }
}

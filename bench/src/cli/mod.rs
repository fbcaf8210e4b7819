//! The command line: what it refuses, and what other programs are told of it.

mod describe;
mod refusal;
mod value;

pub(crate) use describe::{Describe, completions, manual};
pub(crate) use refusal::parse;
pub(crate) use value::{rounds, seconds, server};

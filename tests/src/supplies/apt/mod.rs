//! Debian packages without root and without touching the system: a private apt configuration made
//! from the machine's own sources, with its own lists, state and archives.

mod config;
mod fetch;
mod release;
mod sources;
mod unpack;

pub(crate) use config::Apt;
pub(crate) use fetch::Package;
pub(crate) use release::Release;

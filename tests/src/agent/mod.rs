//! Work inside the lab host on the harness's behalf. The same binary is both ends: `lab agent` in
//! the lab host, [`Agent`] in the harness, a virtio serial port between them.

mod client;
mod idle_vm;
mod lost_eoi;
mod program;
pub(crate) mod protocol;
mod qmp;
mod server;

pub(crate) use client::{Agent, Carrier};
pub(crate) use idle_vm::hold as hold_vm;
pub(crate) use qmp::speak;
pub(crate) use server::serve;

//! The control sockets: `strait run --qmp` and `--name`, on which QEMU's tools speak QMP.
//!
//! [`Control`] listens and answers on the event loop's thread; `wire.rs` is what commands mean, `client.rs` one connection
//! with its bounds. What the machine is asked for it does by [`Wish`], what it is asked about it tells by [`Facts`].

mod client;
mod command;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod listener;
mod scanner;
mod server;
mod wire;

pub use command::Attachment;
pub use listener::{Listener, QmpAddress};
pub use server::{Control, Facts, Ticket, Wish};
pub use wire::Refused;
pub(crate) use wire::event;

//! A stub for gdb: `strait run --gdb`.
//!
//! gdbstub speaks the protocol; what it is told of is here. [`Debugger`] is who is listened to; `inferior.rs` is the guest
//! as gdb has it, whose vCPUs it owns while they stand still, and `target.rs` what gdbstub asks of it; QEMU's own packets go by `filter.rs`, `monitor` commands
//! by `monitor.rs`. Nothing here runs, and no vCPU looks at anything of it, where no debugger was asked for.

mod breakpoints;
mod debugger;
mod endpoint;
mod filter;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod inferior;
mod monitor;
mod registers;
mod symbols;
mod target;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod walk;

pub use debugger::{Debugger, Wish};
pub use endpoint::GdbAddress;
pub use monitor::Scene;
pub use symbols::{SymbolsError, elf as symbols};

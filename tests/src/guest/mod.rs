//! Guests of the lab host: how a VMM is asked for one, and what is typed on its console.

mod console;
pub(crate) mod debug_code;
pub(crate) mod gdb_session;
mod guest_config;
pub(crate) mod hypervisor;
mod interface;
mod late;
pub(crate) mod machine_code;
mod running;
pub(crate) mod svm_code;
mod typed;
mod vmm;
pub(crate) mod vmx_code;

pub(crate) use guest_config::{Boot, GuestConfig};
pub(crate) use interface::{Interface, Vector};
pub(crate) use late::judge;
pub(crate) use running::Guest;
pub(crate) use typed::{complaints, kept, number, says};
pub(crate) use vmm::Vmm;

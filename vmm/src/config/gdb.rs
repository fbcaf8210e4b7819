//! Who may look into the guest: `-s`, `--gdb` and `-S`.

use std::io;

use crate::gdb::{Debugger, GdbAddress};
use crate::kvm::{Vm, debug};
use crate::memory::GuestRam;
use crate::output::Output;

/// A debugger that the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GdbConfig {
    /// Where it is listened to.
    pub address: GdbAddress,
    /// The guest does not start before it is let go.
    pub waits: bool,
}

/// An address that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--gdb {0}: cannot listen there")]
pub struct ListenError(GdbAddress, #[source] io::Error);

impl GdbConfig {
    /// Listens, and says whom that lets in.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(&self, ram: &GuestRam, vm: &Vm, messages: &Output) -> Result<Debugger, ListenError> {
        let Self { address, waits } = self;
        let memory = ram.memory().clone();
        let debugger = Debugger::listen(address, *waits, memory, debug::can_block_interrupts(vm))
            .map_err(|source| ListenError(address.clone(), source))?;
        if address.is_public() {
            log::warn!(
                "--gdb {address}: whoever reaches this port reads and changes the guest's memory and registers, and \
                 by them its devices; nobody is asked for a password"
            );
        }
        if *waits {
            // Nothing else shows that it is not hung.
            messages.put(format!("strait: the guest waits for a debugger at {address}\n").as_bytes());
        }
        Ok(debugger)
    }
}

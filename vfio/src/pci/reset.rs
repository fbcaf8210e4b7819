//! Resets of the function: those the guest asks for by its registers, and those of the whole machine.

use std::io;

use super::passthrough::{Passthrough, State};

impl Passthrough {
    /// Resets hardware and registers. While the kernel resets, it holds off accesses to mapped BARs
    /// (`vfio_pci_zap_and_down_write_memory_lock`), and restores the command register: the guest's regions
    /// answer until the effect takes them away.
    pub(super) fn reset_function(&self, state: &mut State) {
        self.reset_registers(state);
        match self.hardware.reset() {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                self.report("reset the function, which keeps its state", &error);
            }
            _ => {}
        }
    }

    /// Undoes what the guest set: no DMA, no interrupts, no BARs.
    pub(super) fn reset_registers(&self, state: &mut State) {
        state.config.reset_bytes();
        state.wire.silence();
        self.update_command(state);
        state.config.reset_areas();
        self.update_interrupts(state);
    }
}

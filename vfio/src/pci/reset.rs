//! Resets of the function: those the guest asks for by its registers, and those of the whole machine.

use std::io;

use super::field::part;
use super::passthrough::{Passthrough, State};
use super::spec::{advanced_features, express};
use crate::lock::lock;

impl Passthrough {
    /// A write that initiates a function level reset (PCIe §7.5.3.4; advanced features, bit 0 of control).
    pub(super) fn asks_for_reset(&self, register: u16, data: &[u8]) -> bool {
        let bit = |at: Option<u16>, bits: u8| {
            let written = at.and_then(|at| part(register, data, at, 1));
            written.is_some_and(|(_, bytes)| bytes[0] & bits != 0)
        };
        let express = self.layout.express_flr.map(|at| at + express::DEVICE_CONTROL + 1);
        let advanced = self.layout.advanced_flr.map(|at| at + advanced_features::CONTROL);
        bit(express, (express::INITIATE_FLR >> 8) as u8) || bit(advanced, advanced_features::INITIATE_FLR)
    }

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
        state.config.reset();
        state.is_heard = false;
        self.update_command(state);
        state.bars.reset();
        if let Some(rom) = &mut state.rom {
            rom.reset();
        }
        if let Some(msi) = &mut state.msi {
            msi.reset();
        }
        if let Some(msix) = &self.msix {
            lock(msix).reset();
        }
        self.update_interrupts(state);
    }
}

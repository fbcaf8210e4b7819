//! The wire of the function, or messages: never both.

use std::mem;
use std::sync::Arc;

use strait_devices::irq::SharedLine;
use strait_devices::pci::capability::Msi;
use strait_devices::pci::capability::msi::{self, MESSAGE_CONTROL as MSI_CONTROL};
use strait_devices::pci::capability::msix::{self, MESSAGE_CONTROL as MSIX_CONTROL};
use strait_devices::pci::spec::command;

use super::field::{part, with_bytes};
use super::layout::Layout;
use super::passthrough::{Passthrough, PassthroughError, State};
use crate::hardware::Hardware;
use crate::intx::Intx;
use crate::lock::lock;

impl Passthrough {
    /// The wire, for whoever serves its signals.
    pub fn intx(&self) -> Option<&Arc<Intx>> {
        self.intx.as_ref()
    }

    /// Follows the guest's registers with the wire and the command register. A function with messages enabled
    /// does not use its wire (PCIe §7.7.1.2, §7.7.2.2), and one that decodes nothing has no driver yet that
    /// could be told anything.
    ///
    /// When messages go, the host's kernel lets the function use its wire again (`pci_intx_for_msi`,
    /// drivers/pci/msi/msi.c), also one that nobody hears: its wire is enabled and disabled then, which
    /// silences it as the command register says (`vfio_intx_enable`).
    pub(super) fn update_interrupts(&self, state: &mut State) {
        let has_messages = state.msi.as_ref().is_some_and(Msi::is_enabled)
            || self.msix.as_ref().is_some_and(|msix| lock(msix).is_enabled());
        let had_messages = mem::replace(&mut state.has_messages, has_messages);
        let command = state.command();
        let decodes = command & (command::IO | command::MEMORY) != 0 && state.is_powered(&self.layout);
        if let Some(intx) = &self.intx {
            intx.set_silenced(command & command::INTX_DISABLE != 0);
            if had_messages && !has_messages {
                intx.set_enabled(true);
            }
        }
        match decodes && !has_messages {
            true => self.start_hearing(state),
            false => self.stop_hearing(state),
        }
    }

    /// Somebody is there before the function may signal.
    fn start_hearing(&self, state: &mut State) {
        if let Some(intx) = &self.intx {
            intx.set_enabled(true);
            state.is_heard = true;
        }
        self.update_command(state);
    }

    /// The function is silent before nobody is there: on a line that it shares on the host, the kernel would
    /// give up the line, and with it the devices that it is shared with (`note_interrupt`,
    /// kernel/irq/spurious.c).
    pub(super) fn stop_hearing(&self, state: &mut State) {
        state.is_heard = false;
        self.update_command(state);
        if let Some(intx) = &self.intx {
            intx.set_enabled(false);
        }
    }

    /// A write that turns messages on. The host refuses them while it has the wire (`vfio_pci_set_irqs_ioctl`,
    /// `irq_is` in drivers/vfio/pci/vfio_pci_intrs.c).
    pub(super) fn enables_messages(&self, register: u16, data: &[u8]) -> bool {
        let bit = |at: Option<u16>, bits: u16| {
            let control = at.and_then(|at| part(register, data, at, 2));
            control.is_some_and(|(at, bytes)| with_bytes(0, at, bytes) & bits != 0)
        };
        bit(self.layout.msi.map(|at| at.offset + MSI_CONTROL), msi::ENABLE)
            || bit(self.layout.msix.map(|at| at.offset + MSIX_CONTROL), msix::ENABLE)
    }
}

/// The wire that the function's pin leads to, if it has one.
pub(super) fn intx(
    hardware: &Arc<dyn Hardware>,
    layout: &Layout,
    wires: &[Arc<SharedLine>; 4],
) -> Result<Option<Arc<Intx>>, PassthroughError> {
    let wire = layout.intx_pin.and_then(|pin| wires.get(usize::from(pin) - 1));
    let failed = |source| PassthroughError::Event {
        device: hardware.name().to_owned(),
        source,
    };
    wire.map(|wire| Intx::new(Arc::clone(hardware), wire).map_err(failed))
        .transpose()
}

//! The wire of the function, or messages: never both.

use std::mem;
use std::sync::Arc;

use strait_devices::irq::SharedLine;
use strait_devices::pci::spec::command;

use super::passthrough::{Passthrough, PassthroughError, State};
use crate::hardware::Hardware;
use crate::intx::Intx;

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
        let has_messages = state.config.has_messages();
        let had_messages = mem::replace(&mut state.has_messages, has_messages);
        let command = state.config.command();
        let decodes = command & (command::IO | command::MEMORY) != 0 && state.config.is_awake();
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

    /// Somebody is there before the function may signal; where the host gives no interrupt for its wire, it may
    /// not.
    fn start_hearing(&self, state: &mut State) {
        if let Some(intx) = &self.intx {
            state.is_heard = intx.set_enabled(true);
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
}

/// The wire that the function's pin leads to, if it has one.
pub(super) fn intx(
    hardware: &Arc<dyn Hardware>,
    pin: Option<u8>,
    wires: &[Arc<SharedLine>; 4],
) -> Result<Option<Arc<Intx>>, PassthroughError> {
    let wire = pin.and_then(|pin| wires.get(usize::from(pin) - 1));
    let failed = |source| PassthroughError::Event {
        device: hardware.name().to_owned(),
        source,
    };
    wire.map(|wire| Intx::new(Arc::clone(hardware), wire).map_err(failed))
        .transpose()
}

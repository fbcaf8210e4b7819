//! The wire of the function, or messages: never both.

use std::io;
use std::sync::Arc;

use strait_devices::irq::SharedLine;

use crate::hardware::Hardware;
use crate::intx::Intx;

/// Who hears the wire of a function, as the guest's registers go.
pub(super) struct Wire {
    /// None for a function that has no pin.
    intx: Option<Arc<Intx>>,
    /// Somebody serves it, so the function may signal.
    is_heard: bool,
    /// The guest has MSI or MSI-X enabled.
    has_messages: bool,
}

impl Wire {
    /// The wire that `pin` (1 to 4) leads to among INTA to INTD of the slot; nobody hears it yet.
    ///
    /// # Errors
    /// When the host gives no more descriptors.
    pub(super) fn new(
        hardware: &Arc<dyn Hardware>,
        pin: Option<u8>,
        lines: &[Arc<SharedLine>; 4],
    ) -> io::Result<Self> {
        let line = pin.and_then(|pin| lines.get(usize::from(pin) - 1));
        let intx = line
            .map(|line| Intx::new(Arc::clone(hardware), line))
            .transpose()?;
        Ok(Self {
            intx,
            is_heard: false,
            has_messages: false,
        })
    }

    /// For whoever serves its signals.
    pub(super) fn intx(&self) -> Option<&Arc<Intx>> {
        self.intx.as_ref()
    }

    /// Whether the function may signal.
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Follows the guest's interrupt disable bit (`is_silenced`) and its messages.
    ///
    /// When messages go, the host's kernel lets the function use its wire again (`pci_intx_for_msi`,
    /// drivers/pci/msi/msi.c), also one that nobody hears: its wire is enabled then, and disabled by whoever
    /// stops to hear it, which silences it as the command register says (`vfio_intx_enable`).
    pub(super) fn follow(&mut self, is_silenced: bool, has_messages: bool) {
        let messages_go = self.has_messages && !has_messages;
        self.has_messages = has_messages;
        if let Some(intx) = &self.intx {
            intx.set_silenced(is_silenced);
            if messages_go {
                intx.set_enabled(true);
            }
        }
    }

    /// Somebody is there before the function may signal; where the host gives no interrupt for its wire, it may
    /// not.
    pub(super) fn hear(&mut self) {
        if let Some(intx) = &self.intx {
            self.is_heard = intx.set_enabled(true);
        }
    }

    /// The function may not signal any more: to be told to it before [`leave`](Self::leave).
    pub(super) fn silence(&mut self) {
        self.is_heard = false;
    }

    /// Nobody is there any more.
    pub(super) fn leave(&self) {
        if let Some(intx) = &self.intx {
            intx.set_enabled(false);
        }
    }
}

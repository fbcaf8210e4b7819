//! What the host tells of a device while a guest has it: that it wants it back, and that it failed.

use std::io;
use std::os::fd::BorrowedFd;

use vfio_bindings::bindings::vfio as uapi;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::sys;

/// The two events of a device, those that its driver has.
#[derive(Debug)]
pub(crate) struct HostEvents {
    /// The driver is being unbound, and waits for the device to be closed (`vfio_pci_core_request`).
    request: Option<EventFd>,
    /// The device reported an uncorrectable error (`vfio_pci_core_aer_err_detected`).
    error: Option<EventFd>,
}

impl HostEvents {
    /// Lets the host signal; it stops when `device` is closed.
    ///
    /// # Errors
    /// When the host gives no more descriptors, or the driver refuses one.
    pub(crate) fn listen(device: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            request: listen(device, uapi::VFIO_PCI_REQ_IRQ_INDEX)?,
            error: listen(device, uapi::VFIO_PCI_ERR_IRQ_INDEX)?,
        })
    }

    /// What becomes readable with a signal.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.request, &self.error]
            .into_iter()
            .flatten()
            .map(sys::borrow)
    }

    /// True once for each time the host asked for the device.
    pub(crate) fn take_request(&self) -> bool {
        take(&self.request)
    }

    /// True once for each report of errors.
    pub(crate) fn take_error(&self) -> bool {
        take(&self.error)
    }
}

fn listen(device: BorrowedFd<'_>, index: u32) -> io::Result<Option<EventFd>> {
    // A driver does not describe the events it has not, such as errors of a device without Express.
    let has_one = sys::irq_info(device, index).is_ok_and(|info| info.u32(12) != 0);
    if !has_one {
        return Ok(None);
    }
    let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
    sys::set_irq_events(device, index, 0, &[Some(sys::borrow(&event))])?;
    Ok(Some(event))
}

fn take(event: &Option<EventFd>) -> bool {
    event.as_ref().is_some_and(|event| event.read().is_ok())
}

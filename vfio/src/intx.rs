//! INTx, the interrupt wire of a function (PCI Local Bus 3.0 §2.2.6, PCIe §6.1.1).
//!
//! A level interrupt needs two messages: the function asks, and the CPU is done. KVM could exchange them
//! with VFIO alone (a resampling irqfd) if it had the I/O APIC; ours is in this process, so that interrupt
//! remapping can stand behind it. The host's driver masks the wire with each signal, so what it costs is
//! one signal and one unmasking for each interrupt, never a storm.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, Weak};

use strait_devices::irq::{EndOfInterrupt, IrqLine, LineInput, SharedLine};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::hardware::{Hardware, InterruptKind};
use crate::sys;
use strait_devices::lock;
use strait_devices::warning::FirstOnly;

/// The wire of one function, from the host's signal to the guest's interrupt controller and back.
///
/// Lock order: the state, then the guest's line.
pub struct Intx {
    hardware: Arc<dyn Hardware>,
    line: LineInput,
    event: EventFd,
    state: Mutex<State>,
    failed: FirstOnly,
}

#[derive(Default)]
struct State {
    /// The host signals the event.
    is_enabled: bool,
    /// The guest set the interrupt disable bit of the command register.
    is_silenced: bool,
    /// The host signalled and holds the wire masked. The guest's line is high then, unless silenced.
    is_raised: bool,
}

impl Intx {
    /// The wire of `hardware` as an input of `line`; disabled at first.
    ///
    /// # Errors
    /// When the host gives no more descriptors.
    pub fn new(hardware: Arc<dyn Hardware>, line: &Arc<SharedLine>) -> io::Result<Arc<Self>> {
        let intx = Arc::new(Self {
            hardware,
            line: line.input(),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            state: Mutex::default(),
            failed: FirstOnly::default(),
        });
        let listener: Weak<Self> = Arc::downgrade(&intx);
        line.listen(listener);
        Ok(intx)
    }

    /// Passes a signal on to the guest. To be called when [`Intx::as_fd`] is readable.
    pub fn serve(&self) {
        let mut state = lock(&self.state);
        // An event of before the wire was disabled reads as none.
        if self.event.read().is_ok() && state.is_enabled {
            state.is_raised = true;
            self.line.set_level(!state.is_silenced);
        }
    }

    /// Lets the host signal the wire, or not. The host has either this or messages, never both: the wire is
    /// to be disabled before messages are enabled, and the function to be silenced before the wire is disabled.
    ///
    /// True if the host signals it now.
    pub(crate) fn set_enabled(&self, enabled: bool) -> bool {
        let mut state = lock(&self.state);
        if state.is_enabled == enabled {
            return enabled;
        }
        if enabled {
            let event = Some(sys::borrow(&self.event));
            match self.hardware.set_interrupts(InterruptKind::Intx, 0, &[event]) {
                Ok(0) => state.is_enabled = true,
                Ok(_) => self.report("enable", &io::Error::other("the host has no interrupt for it")),
                Err(error) => self.report("enable", &error),
            }
            return state.is_enabled;
        }
        if let Err(error) = self.hardware.disable_interrupts(InterruptKind::Intx) {
            self.report("disable", &error);
        }
        state.is_enabled = false;
        state.is_raised = false;
        self.line.set_level(false);
        // What was signalled up to now concerns nobody any more.
        let _ = self.event.read();
        false
    }

    /// Follows the guest's interrupt disable bit (PCIe §7.5.1.1.3); to be called before the bit is written to
    /// the hardware. What was raised is forgotten: a function that still asks when the bit is cleared makes
    /// the host signal again (`vfio_basic_config_write`, drivers/vfio/pci/vfio_pci_config.c).
    pub(crate) fn set_silenced(&self, silenced: bool) {
        let mut state = lock(&self.state);
        if state.is_silenced == silenced {
            return;
        }
        state.is_silenced = silenced;
        if silenced {
            self.line.set_level(false);
        } else {
            state.is_raised = false;
        }
    }

    /// A signal of the host, served.
    #[cfg(test)]
    pub(crate) fn raise(&self) {
        self.event.write(1).expect("room in the counter");
        self.serve();
    }

    fn unmask(&self, state: &mut State) {
        state.is_raised = false;
        if let Err(error) = self.hardware.unmask_intx() {
            self.report("unmask", &error);
        }
    }

    fn report(&self, what: &str, error: &io::Error) {
        if self.failed.pass() {
            let name = self.hardware.name();
            log::warn!("{name}: cannot {what} INTx, the guest may miss interrupts: {error}");
        }
    }
}

impl EndOfInterrupt for Intx {
    /// The line goes low before the host is asked, which signals again if the function is not content. A
    /// silenced wire waits for the guest to want it.
    fn end_of_interrupt(&self) {
        let mut state = lock(&self.state);
        if state.is_raised && !state.is_silenced {
            self.line.set_level(false);
            self.unmask(&mut state);
        }
    }
}

/// Readable when the host signals the wire.
impl AsFd for Intx {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::borrow(&self.event)
    }
}

impl Drop for Intx {
    fn drop(&mut self) {
        self.set_enabled(false);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use strait_devices::testing::FakeLine;

    use super::*;
    use crate::mock::{Call, MockHardware};

    struct Fixture {
        hardware: Arc<MockHardware>,
        line: Arc<FakeLine>,
        shared: Arc<SharedLine>,
        intx: Arc<Intx>,
    }

    fn fixture() -> Fixture {
        let hardware = Arc::new(MockHardware::new().with_interrupts(InterruptKind::Intx, 1, false));
        let line = FakeLine::new();
        let shared = SharedLine::new(line.clone());
        let intx = Intx::new(hardware.clone(), &shared).expect("an eventfd");
        Fixture {
            hardware,
            line,
            shared,
            intx,
        }
    }

    impl Fixture {
        fn enabled() -> Self {
            let f = fixture();
            f.intx.set_enabled(true);
            f.hardware.take_calls();
            f
        }

        /// The host's driver signals, and the event loop serves.
        fn signal(&self) {
            self.intx.raise();
        }
    }

    #[test]
    fn the_wire_is_tied_to_its_event_once() {
        let f = fixture();
        f.intx.set_enabled(true);
        f.intx.set_enabled(true);
        let event = Some(f.intx.event.as_raw_fd());
        let set = Call::SetInterrupts(InterruptKind::Intx, 0, vec![event]);
        assert_eq!(f.hardware.take_calls(), [set]);
    }

    #[test]
    fn a_signal_raises_the_line_until_the_end_of_the_interrupt() {
        let f = Fixture::enabled();
        f.signal();
        assert!(f.line.is_high());
        f.shared.end_of_interrupt();
        assert!(!f.line.is_high());
        assert_eq!(f.hardware.take_calls(), [Call::UnmaskIntx]);
        f.signal();
        assert_eq!(f.line.levels(), [true, false, true]);
    }

    #[test]
    fn the_end_of_a_neighbours_interrupt_costs_nothing() {
        let f = Fixture::enabled();
        f.shared.end_of_interrupt();
        assert!(f.hardware.take_calls().is_empty());
    }

    #[test]
    fn a_silenced_wire_keeps_quiet_and_hears_anew_when_it_may_speak() {
        let f = Fixture::enabled();
        f.intx.set_silenced(true);
        f.signal();
        assert!(f.line.levels().is_empty());
        f.intx.set_silenced(false);
        assert!(!f.line.is_high(), "the host says whether it still asks");
        f.signal();
        assert!(f.line.is_high());
        assert!(f.hardware.take_calls().is_empty());
    }

    #[test]
    fn silencing_in_service_waits_with_the_unmasking() {
        // What a guest's own vfio-pci does with each interrupt.
        let f = Fixture::enabled();
        f.signal();
        f.intx.set_silenced(true);
        assert!(!f.line.is_high());
        f.shared.end_of_interrupt();
        f.intx.set_silenced(false);
        f.shared.end_of_interrupt();
        assert!(
            f.hardware.take_calls().is_empty(),
            "the command register unmasks it on the host"
        );
    }

    #[test]
    fn disabling_lowers_the_line_and_forgets_what_was_signalled() {
        let f = Fixture::enabled();
        f.signal();
        f.intx.event.write(1).expect("room in the counter");
        f.intx.set_enabled(false);
        f.intx.serve();
        assert_eq!(f.line.levels(), [true, false]);
        f.intx.set_enabled(true);
        f.intx.serve();
        assert!(!f.line.is_high());
    }

    #[test]
    fn a_device_that_is_gone_leaves_the_line_low() {
        let f = fixture();
        f.hardware.kill();
        f.intx.set_enabled(true);
        f.signal();
        assert!(f.line.levels().is_empty());
    }

    #[test]
    fn dropping_disables_it() {
        let Fixture {
            hardware, line, intx, ..
        } = Fixture::enabled();
        intx.raise();
        drop(intx);
        assert_eq!(
            hardware.take_calls(),
            [Call::DisableInterrupts(InterruptKind::Intx)]
        );
        assert!(!line.is_high());
    }

    #[test]
    fn two_functions_share_a_line() {
        let f = Fixture::enabled();
        let hardware = Arc::new(MockHardware::new().with_interrupts(InterruptKind::Intx, 1, false));
        let other = Intx::new(hardware.clone(), &f.shared).expect("an eventfd");
        other.set_enabled(true);
        f.signal();
        other.raise();
        f.shared.end_of_interrupt();
        assert!(!f.line.is_high());
        assert_eq!(f.line.levels(), [true, false]);
        assert_eq!(f.hardware.take_calls(), [Call::UnmaskIntx]);
        assert_eq!(hardware.take_calls().last(), Some(&Call::UnmaskIntx));
    }
}

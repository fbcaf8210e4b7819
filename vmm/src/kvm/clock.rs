//! The guest's clock while it stands still (Documentation/virt/kvm/x86/timekeeping.rst, pvclock).

use kvm_bindings::kvm_clock_data;

use super::vm::{Vm, VmError, failed};

/// Nanoseconds that the guest's clock showed when it was stopped.
#[derive(Clone, Copy, Debug)]
pub struct StoppedClock(u64);

impl Vm {
    /// What the guest's clock shows, to go on from there.
    ///
    /// # Errors
    /// When KVM does not tell it.
    pub fn stop_clock(&self) -> Result<StoppedClock, VmError> {
        let data = self.fd().get_clock().map_err(failed("read the guest's clock"))?;
        Ok(StoppedClock(data.clock))
    }

    /// Lets the clock go on from where it stopped. Without KVM_CLOCK_REALTIME, KVM adds nothing for the time between.
    ///
    /// # Errors
    /// When KVM does not take it.
    pub fn go_on_with_clock(&self, stopped: StoppedClock) -> Result<(), VmError> {
        let data = kvm_clock_data {
            clock: stopped.0,
            ..Default::default()
        };
        self.fd()
            .set_clock(&data)
            .map_err(failed("set the guest's clock"))
    }
}

//! A vCPU's state as KVM made it, to go back to when the guest resets.
//!
//! KVM has no "reset" for a vCPU; what it sets up at creation is the power-on state, so it is read then
//! and written back later.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Error, VcpuFd};

/// The time stamp counter, which goes on through a reset.
const MSR_TSC: u32 = 0x10;

/// Everything a reset puts back.
pub(super) struct ResetState {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    msrs: Vec<kvm_msr_entry>,
}

impl ResetState {
    /// Reads the state of a vCPU; `msrs` are the numbers of the registers KVM keeps.
    pub(super) fn capture(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, Error> {
        Ok(Self {
            mp_state: vcpu.get_mp_state()?,
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            fpu: vcpu.get_fpu()?,
            xcrs: vcpu.get_xcrs()?,
            debug: vcpu.get_debug_regs()?,
            lapic: vcpu.get_lapic()?,
            events: vcpu.get_vcpu_events()?,
            msrs: msrs.iter().filter_map(|index| read_msr(vcpu, *index)).collect(),
        })
    }

    /// Writes it back. Special registers go before the APIC, whose mode they set, and before the MSRs,
    /// some of which depend on EFER; leaving EFER.SVME also ends a nested guest.
    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        vcpu.set_mp_state(self.mp_state)?;
        vcpu.set_sregs(&self.sregs)?;
        vcpu.set_regs(&self.regs)?;
        vcpu.set_fpu(&self.fpu)?;
        vcpu.set_xcrs(&self.xcrs)?;
        vcpu.set_debug_regs(&self.debug)?;
        for msr in &self.msrs {
            write_msr(vcpu, *msr);
        }
        vcpu.set_lapic(&self.lapic)?;
        vcpu.set_vcpu_events(&self.events)
    }
}

/// Registers are read one by one: a list with one that this CPU lacks would stop there.
fn read_msr(vcpu: &VcpuFd, index: u32) -> Option<kvm_msr_entry> {
    let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }]).ok()?;
    let read = index != MSR_TSC && vcpu.get_msrs(&mut msrs).is_ok_and(|count| count == 1);
    read.then(|| msrs.as_slice()[0])
}

/// Some listed registers are read-only and refuse their own value; nothing is lost then.
fn write_msr(vcpu: &VcpuFd, msr: kvm_msr_entry) {
    let written = Msrs::from_entries(&[msr]).ok().and_then(|msrs| vcpu.set_msrs(&msrs).ok());
    if written != Some(1) {
        log::trace!("MSR {:#x} keeps its value over the reset", msr.index);
    }
}

//! A vCPU's state as KVM made it, to go back to when the guest resets.
//!
//! KVM has no "reset" for a vCPU; what it sets up at creation is the power-on state, so it is read then
//! and written back later.

use std::collections::BTreeMap;

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
            msrs: read_msrs(vcpu, msrs),
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
        write_msrs(vcpu, &self.changed_msrs(vcpu));
        vcpu.set_lapic(&self.lapic)?;
        vcpu.set_vcpu_events(&self.events)
    }

    /// What the guest changed. KVM logs a line on the host for some registers even if the value written is
    /// the one they have.
    fn changed_msrs(&self, vcpu: &VcpuFd) -> Vec<kvm_msr_entry> {
        let indices: Vec<_> = self.msrs.iter().map(|msr| msr.index).collect();
        let now: BTreeMap<_, _> = read_msrs(vcpu, &indices)
            .into_iter()
            .map(|msr| (msr.index, msr.data))
            .collect();
        self.msrs
            .iter()
            .filter(|msr| now.get(&msr.index) != Some(&msr.data))
            .copied()
            .collect()
    }
}

/// The registers among `indices` that this CPU has. KVM stops a list at the first that it lacks, so what
/// is behind that one is asked for again.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let wanted: Vec<_> = indices.iter().filter(|index| **index != MSR_TSC).collect();
    let entries: Vec<_> = wanted
        .iter()
        .map(|index| kvm_msr_entry {
            index: **index,
            ..Default::default()
        })
        .collect();
    let mut read = Vec::new();
    each_run(&entries, |msrs| {
        let count = vcpu.get_msrs(msrs).unwrap_or(0);
        read.extend_from_slice(&msrs.as_slice()[..count]);
        count
    });
    read
}

/// Writes registers back. A listed register that is read-only refuses even its own value; nothing is lost
/// then.
fn write_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) {
    each_run(entries, |msrs| vcpu.set_msrs(msrs).unwrap_or(0));
}

/// Calls `ioctl` until all entries are done; it says how many of a list it did before one failed.
fn each_run(mut entries: &[kvm_msr_entry], mut ioctl: impl FnMut(&mut Msrs) -> usize) {
    while let Ok(mut msrs) = Msrs::from_entries(entries)
        && !entries.is_empty()
    {
        let done = ioctl(&mut msrs).min(entries.len());
        entries = entries.get(done + 1..).unwrap_or_default();
    }
}

//! A vCPU's state as KVM made it, to go back to when the guest resets.
//!
//! KVM has no "reset" for a vCPU; what it sets up at creation is the power-on state, so it is read then
//! and written back later.

use std::collections::BTreeMap;

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_nested_state__bindgen_ty_1 as NestedHeader, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Cap, Error, Kvm, KvmNestedStateBuffer, VcpuFd};

/// The time stamp counter, which goes on through a reset.
const MSR_TSC: u32 = 0x10;

/// A part of the state that a reset puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nested,
    RunState,
    SpecialRegisters,
    Registers,
    Fpu,
    ExtendedControl,
    Debug,
    Msrs,
    Apic,
    Events,
}

/// The parts in the order in which they are put back. First the vCPU leaves virtualization of its own: in VMX
/// operation KVM refuses the special registers, for CR4.VMXE cannot be cleared (`vmx_is_valid_cr4`), and in a
/// guest's guest some of them are lost with that guest (`svm_leave_nested`). Special registers go before the
/// APIC, whose mode they set, and before the MSRs, some of which depend on EFER. Events come last, which
/// take the vCPU out of system management mode and forget an INIT that waits.
const ORDER: [Part; 10] = [
    Part::Nested,
    Part::RunState,
    Part::SpecialRegisters,
    Part::Registers,
    Part::Fpu,
    Part::ExtendedControl,
    Part::Debug,
    Part::Msrs,
    Part::Apic,
    Part::Events,
];

/// What KVM knows of a vCPU's own virtualization while it is in no guest: nothing lies behind the header.
struct Nested {
    flags: u16,
    format: u16,
    header: NestedHeader,
}

impl Nested {
    fn capture(vcpu: &VcpuFd) -> Result<Self, Error> {
        let mut state = KvmNestedStateBuffer::empty();
        vcpu.nested_state(&mut state)?;
        Ok(Self {
            flags: state.flags,
            format: state.format,
            header: state.hdr,
        })
    }

    fn restore(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        let mut state = KvmNestedStateBuffer::empty();
        (state.flags, state.format, state.hdr) = (self.flags, self.format, self.header);
        vcpu.set_nested_state(&state)
    }
}

/// Everything a reset puts back.
#[derive(Default)]
pub(super) struct ResetState {
    /// `None` if this KVM does not virtualize virtualization.
    nested: Option<Nested>,
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
    /// Reads the state of a vCPU that has not run yet.
    pub(super) fn capture(vcpu: &VcpuFd, kvm: &Kvm) -> Result<Self, Error> {
        let nested = match kvm.check_extension(Cap::NestedState) {
            true => Some(Nested::capture(vcpu)?),
            false => None,
        };
        Ok(Self {
            nested,
            mp_state: vcpu.get_mp_state()?,
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            fpu: vcpu.get_fpu()?,
            xcrs: vcpu.get_xcrs()?,
            debug: vcpu.get_debug_regs()?,
            lapic: vcpu.get_lapic()?,
            events: vcpu.get_vcpu_events()?,
            msrs: read_msrs(vcpu, kvm.get_msr_index_list()?.as_slice()),
        })
    }

    /// Lets interrupts between CPUs find this vCPU. KVM looks their ids up in a map that it makes anew when a local
    /// APIC is written, and not when a vCPU is there for good (`kvm_recalculate_apic_map`, `kvm_vm_ioctl_create_vcpu`):
    /// a guest that starts its CPUs first of all would not reach them.
    pub(super) fn announce(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        vcpu.set_lapic(&self.lapic)
    }

    /// Writes it back, in an order in which the kernel takes each part.
    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        self.parts().try_for_each(|part| self.write(part, vcpu))
    }

    /// The parts that this CPU has: without XSAVE there are no extended control registers, and KVM refuses
    /// to set none.
    fn parts(&self) -> impl Iterator<Item = Part> {
        ORDER.into_iter().filter(|part| match part {
            Part::Nested => self.nested.is_some(),
            Part::ExtendedControl => self.xcrs.nr_xcrs != 0,
            _ => true,
        })
    }

    fn write(&self, part: Part, vcpu: &VcpuFd) -> Result<(), Error> {
        match part {
            Part::Nested => self.nested.iter().try_for_each(|nested| nested.restore(vcpu)),
            Part::RunState => vcpu.set_mp_state(self.mp_state),
            Part::SpecialRegisters => vcpu.set_sregs(&self.sregs),
            Part::Registers => vcpu.set_regs(&self.regs),
            Part::Fpu => vcpu.set_fpu(&self.fpu),
            Part::ExtendedControl => vcpu.set_xcrs(&self.xcrs),
            Part::Debug => vcpu.set_debug_regs(&self.debug),
            Part::Msrs => {
                write_msrs(vcpu, &self.changed_msrs(vcpu));
                Ok(())
            }
            Part::Apic => vcpu.set_lapic(&self.lapic),
            Part::Events => vcpu.set_vcpu_events(&self.events),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn position(parts: &[Part], part: Part) -> Option<usize> {
        parts.iter().position(|other| *other == part)
    }

    #[test]
    fn virtualization_is_left_before_anything_that_it_refuses() {
        let state = ResetState {
            nested: Some(Nested {
                flags: 0,
                format: 0,
                header: NestedHeader::default(),
            }),
            ..Default::default()
        };
        let parts: Vec<_> = state.parts().collect();
        let nested = position(&parts, Part::Nested).expect("it is left");
        for later in [Part::RunState, Part::SpecialRegisters, Part::Msrs, Part::Events] {
            assert!(position(&parts, later) > Some(nested), "{parts:?}");
        }
    }

    #[test]
    fn a_cpu_without_xsave_has_no_extended_control_registers_to_set() {
        let mut state = ResetState::default();
        assert_eq!(
            position(&state.parts().collect::<Vec<_>>(), Part::ExtendedControl),
            None
        );
        state.xcrs.nr_xcrs = 1;
        assert!(position(&state.parts().collect::<Vec<_>>(), Part::ExtendedControl).is_some());
    }
}

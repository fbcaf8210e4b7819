//! Guests of a few instructions on the real /dev/kvm, for unit tests. They run in flat 32-bit mode.

use std::sync::Arc;

use strait_devices::Place;
use strait_devices::address_space::AddressSpace;
use strait_devices::region::Region;
use vm_memory::{Bytes, GuestAddress};

use super::slots::MemorySlots;
use super::{System, SystemError, Vm, vcpu};
use crate::boot::EntryState;
use crate::layout::Range;
use crate::memory::{GuestRam, RamSource};

/// A virtual machine with a little RAM from address 0 on and nothing else.
///
/// Field order is drop order, as in the machine.
pub(crate) struct TinyMachine {
    pub(crate) vcpu: vcpu::Vcpu,
    pub(crate) space: Arc<AddressSpace>,
    ram: GuestRam,
    vm: Vm,
}

impl TinyMachine {
    /// A machine with one vCPU, or `None`, which is said, where there is no KVM.
    pub(crate) fn new() -> Option<Self> {
        let system = match System::open() {
            Ok(system) => system,
            Err(why @ (SystemError::Missing | SystemError::Permission(_) | SystemError::Unusable(_))) => {
                eprintln!("skipped: {why}");
                return None;
            }
            Err(other) => panic!("{other}"),
        };
        let vm = Vm::new(&system).expect("a virtual machine");
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        let space = Arc::new(AddressSpace::new());
        space
            .add_listener(Arc::new(MemorySlots::new(&vm)))
            .expect("nothing to refuse");
        for (start, backing) in ram.blocks() {
            space
                .add(Place::Memory(start), Region::ram(backing))
                .expect("an empty map");
        }
        let cpuid = system.supported_cpuid().expect("CPUID");
        let vcpu = vcpu::Vcpu::new(&vm, &system, &cpuid, 0, 1).expect("a vCPU");
        Some(Self { vcpu, space, ram, vm })
    }

    /// The virtual machine that it runs in.
    pub(crate) fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Puts machine code at `address`.
    pub(crate) fn load(&self, address: u64, code: &[u8]) {
        let memory = self.ram.memory();
        memory
            .write_slice(code, GuestAddress(address))
            .expect("inside RAM");
    }
}

/// A start at `address`.
pub(crate) fn entry(address: u64) -> EntryState {
    EntryState::protected_mode(GuestAddress(address), GuestAddress(0))
}

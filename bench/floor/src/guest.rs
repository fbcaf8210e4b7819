//! A guest of one CPU, which begins in real mode.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::ram::Ram;

/// Where its code begins.
pub(crate) const CODE: usize = 0x1000;

/// A virtual machine with its memory. The fields are dropped in this order: nothing of KVM outlives the memory.
pub(crate) struct Guest {
    pub(crate) cpu: VcpuFd,
    pub(crate) vm: VmFd,
    _ram: Arc<Ram>,
}

impl Guest {
    /// Of `vm`, with the pieces of memory of `ram` at their places: offset, bytes, guest address.
    pub(crate) fn new(
        vm: VmFd,
        ram: &Arc<Ram>,
        pieces: impl Iterator<Item = (usize, usize, u64)>,
    ) -> Result<Self> {
        for (slot, (offset, len, at)) in (0..).zip(pieces) {
            let given = ram.mapping().give(&vm, slot, offset, len, at);
            given.with_context(|| format!("cannot give the guest {len} bytes of memory at {at:#x}"))?;
        }
        Ok(Self {
            cpu: at_code(&vm).context("cannot make a CPU")?,
            vm,
            _ram: ram.clone(),
        })
    }

    /// Until it leaves.
    pub(crate) fn run(&mut self) -> Result<VcpuExit<'_>> {
        self.cpu.run().context("the guest cannot be entered")
    }
}

/// A virtual machine without anything.
pub(crate) fn virtual_machine() -> Result<(Kvm, VmFd)> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm().context("cannot make a virtual machine")?;
    Ok((kvm, vm))
}

fn at_code(vm: &VmFd) -> Result<VcpuFd> {
    let cpu = vm.create_vcpu(0)?;
    let mut special = cpu.get_sregs()?;
    special.cs.base = 0;
    special.cs.selector = 0;
    cpu.set_sregs(&special)?;
    let mut general = cpu.get_regs()?;
    general.rip = CODE as u64;
    general.rflags = 2;
    cpu.set_regs(&general)?;
    Ok(cpu)
}

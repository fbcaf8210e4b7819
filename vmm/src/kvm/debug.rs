//! What a debugger sees and sets of a vCPU that stands still.

use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, KVM_MP_STATE_HALTED, KVM_MP_STATE_UNINITIALIZED,
    KVM_STATE_NESTED_FORMAT_SVM, KVM_STATE_NESTED_FORMAT_VMX, KVM_STATE_NESTED_GUEST_MODE, Msrs, kvm_fpu,
    kvm_guest_debug, kvm_msr_entry, kvm_regs, kvm_sregs,
};
use kvm_ioctls::Error;
use strait_devices::GuestAddress;

use super::vcpu::Vcpu;
use super::vm::Vm;

/// IA32_KERNEL_GS_BASE, which no structure of KVM's has.
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Where page tables are, and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Whether there are any.
    pub cr0: u64,
    /// The first of them.
    pub cr3: u64,
    /// How large entries and pages may be, and how many levels there are.
    pub cr4: u64,
    /// They are those of 64-bit mode (EFER.LMA).
    pub is_long: bool,
}

/// How the guest goes on when a guest of its own has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// By which it reaches memory.
    pub tables: Tables,
    /// The linear address of its next instruction.
    pub rip: u64,
}

/// In the control block that KVM tells of a vCPU in a guest of the guest, the save area is the outer guest's
/// (`svm_get_nested_state`); places by APM vol. 2 appendix B.
const VMCB_CS_ATTRIBUTES: usize = 0x412;
const VMCB_CS_BASE: usize = 0x418;
const VMCB_EFER: usize = 0x4d0;
const VMCB_CR4: usize = 0x548;
const VMCB_CR3: usize = 0x550;
const VMCB_CR0: usize = 0x558;
const VMCB_RIP: usize = 0x578;
const EFER_LMA: u64 = 1 << 10;
/// The code segment is one of 64-bit mode, which has no base.
const CS_LONG: u64 = 1 << 9;

/// What the outer guest goes on with, in a layout that KVM keeps for the sake of migration (`vmx_check_vmcs12_offsets`).
const VMCS12_HOST_CR0: usize = 584;
const VMCS12_HOST_CR3: usize = 592;
const VMCS12_HOST_CR4: usize = 600;
const VMCS12_HOST_RIP: usize = 672;
const VMCS12_EXIT_CONTROLS: usize = 768;
/// The outer guest is in 64-bit mode (SDM vol. 3 §25.7.1, "host address-space size").
const TO_LONG_MODE: u64 = 1 << 9;

/// How a vCPU goes on under a debugger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugControl {
    /// A breakpoint instruction leaves the guest.
    pub traps_breakpoints: bool,
    /// It leaves the guest behind the next instruction.
    pub steps: bool,
    /// Meanwhile no interrupt arrives.
    pub blocks_interrupts: bool,
    /// The breakpoint instruction that it is at is the guest's own: its exception goes to the guest first.
    pub returns_breakpoint: bool,
    /// Addresses and DR7, where they are in use.
    pub registers: Option<[u64; 5]>,
}

/// The registers that a debugger knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registers {
    /// General registers, instruction pointer and flags.
    pub general: kvm_regs,
    /// Segments and control registers.
    pub special: kvm_sregs,
    /// x87 and SSE.
    pub fpu: kvm_fpu,
    /// The base that SWAPGS brings in.
    pub kernel_gs_base: u64,
}

impl Vcpu {
    /// Reads the registers.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn registers(&self) -> Result<Registers, Error> {
        let fd = self.fd();
        let entry = kvm_msr_entry {
            index: KERNEL_GS_BASE,
            ..Default::default()
        };
        let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| Error::new(libc::EINVAL))?;
        // A host whose CPUs have no long mode lacks it.
        let _ = fd.get_msrs(&mut msrs);
        Ok(Registers {
            general: fd.get_regs()?,
            special: fd.get_sregs()?,
            fpu: fd.get_fpu()?,
            kernel_gs_base: msrs.as_slice().first().map_or(0, |entry| entry.data),
        })
    }

    /// Writes those that differ from what the vCPU has.
    ///
    /// # Errors
    /// When KVM refuses a value.
    pub fn set_registers(&self, wanted: &Registers) -> Result<(), Error> {
        let (fd, has) = (self.fd(), self.registers()?);
        if wanted.special != has.special {
            fd.set_sregs(&wanted.special)?;
        }
        if wanted.general != has.general {
            fd.set_regs(&wanted.general)?;
        }
        if wanted.fpu != has.fpu {
            fd.set_fpu(&wanted.fpu)?;
        }
        if wanted.kernel_gs_base != has.kernel_gs_base {
            self.set_msrs(&[(KERNEL_GS_BASE, wanted.kernel_gs_base)])?;
        }
        Ok(())
    }

    /// Where in guest memory a linear address is, by the tables that the vCPU uses now: of a guest of the guest where
    /// it runs one (`kvm_arch_vcpu_ioctl_translate`).
    pub fn translate(&self, linear: u64) -> Option<GuestAddress> {
        let found = self.fd().translate_gva(linear).ok()?;
        (found.valid != 0).then_some(GuestAddress(found.physical_address))
    }

    /// Sets how it goes on.
    ///
    /// # Errors
    /// When KVM refuses, as it does to return a breakpoint while another exception waits.
    pub fn set_debug(&self, control: &DebugControl) -> Result<(), Error> {
        let mut debug = kvm_guest_debug::default();
        let mut set = |is_set: bool, bits: u32| {
            if is_set {
                debug.control |= bits;
            }
        };
        set(*control != DebugControl::default(), KVM_GUESTDBG_ENABLE);
        set(control.traps_breakpoints, KVM_GUESTDBG_USE_SW_BP);
        set(control.steps, KVM_GUESTDBG_SINGLESTEP);
        set(control.blocks_interrupts, KVM_GUESTDBG_BLOCKIRQ);
        set(control.returns_breakpoint, KVM_GUESTDBG_INJECT_BP);
        set(control.registers.is_some(), KVM_GUESTDBG_USE_HW_BP);
        if let Some([a, b, c, d, control]) = control.registers {
            debug.arch.debugreg = [a, b, c, d, 0, 0, 0, control];
        }
        self.fd().set_guest_debug(&debug)
    }

    /// How the guest goes on when it runs a guest of the guest now; nothing where it does not. New kernels note
    /// that down with each exit (KVM_RUN_X86_GUEST_MODE), but Linux 6.1 does not; all tell it with the nested state.
    pub fn outer(&self) -> Option<Outer> {
        let mut state = KvmNestedStateBuffer::empty();
        self.fd().nested_state(&mut state).ok()??;
        if u32::from(state.flags) & KVM_STATE_NESTED_GUEST_MODE == 0 {
            return None;
        }
        match u32::from(state.format) {
            KVM_STATE_NESTED_FORMAT_SVM => {
                // SAFETY: the format says which part KVM filled in, and it is bytes of any value.
                let bytes: &[u8] = unsafe { &state.data.svm.vmcb12 };
                let tables = Tables {
                    cr0: word(bytes, VMCB_CR0)?,
                    cr3: word(bytes, VMCB_CR3)?,
                    cr4: word(bytes, VMCB_CR4)?,
                    is_long: word(bytes, VMCB_EFER)? & EFER_LMA != 0,
                };
                let base = match word(bytes, VMCB_CS_ATTRIBUTES)? & CS_LONG {
                    0 => word(bytes, VMCB_CS_BASE)?,
                    _ => 0,
                };
                let rip = base.wrapping_add(word(bytes, VMCB_RIP)?);
                Some(Outer { tables, rip })
            }
            KVM_STATE_NESTED_FORMAT_VMX => {
                // SAFETY: as above.
                let bytes: &[u8] = unsafe { &state.data.vmx.vmcs12 };
                let tables = Tables {
                    cr0: word(bytes, VMCS12_HOST_CR0)?,
                    cr3: word(bytes, VMCS12_HOST_CR3)?,
                    cr4: word(bytes, VMCS12_HOST_CR4)?,
                    is_long: word(bytes, VMCS12_EXIT_CONTROLS)? & TO_LONG_MODE != 0,
                };
                // The base of its code segment is 0 (SDM vol. 3 §28.5.2).
                let rip = word(bytes, VMCS12_HOST_RIP)?;
                Some(Outer { tables, rip })
            }
            _ => None,
        }
    }

    /// It stood still for a time that the guest did not see: Linux's watchdogs take no offence (KVM_KVMCLOCK_CTRL,
    /// Documentation/virt/kvm/api.rst §4.72). A guest without KVM's clock hears of nothing.
    pub fn note_pause(&self) {
        let _ = self.fd().kvmclock_ctrl();
    }

    /// What it does while nobody debugs it, in a word or two.
    pub fn activity(&self) -> &'static str {
        match self.fd().get_mp_state().map(|state| state.mp_state) {
            Ok(KVM_MP_STATE_HALTED) => "halted",
            Ok(KVM_MP_STATE_UNINITIALIZED) => "not started",
            _ => "running",
        }
    }
}

/// Eight bytes of a structure that KVM filled in.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Whether KVM can hold interrupts back while a vCPU steps, as it can since Linux 5.16.
pub fn can_block_interrupts(vm: &Vm) -> bool {
    let flags = vm
        .fd()
        .check_extension_raw(u64::from(kvm_bindings::KVM_CAP_SET_GUEST_DEBUG2));
    u32::try_from(flags).is_ok_and(|flags| flags & KVM_GUESTDBG_BLOCKIRQ != 0)
}

//! A virtual machine that does nothing, for as long as the lab host lives.
//!
//! With the first VM that comes and the last one that goes, KVM switches the scheduler's preempt notifiers on
//! and off, and the kernel rewrites a jump in `__schedule` under both CPUs' feet (virt/kvm/kvm_main.c,
//! `preempt_notifier_key`). A lab host once died of it: `Oops: int3` at that very place. QEMU notices writes
//! to a page of code only from when the first translation of that page is finished (accel/tcg/tb-maint.c,
//! `tb_page_add`), so one that translates while another CPU writes can keep the old bytes; that fits, but
//! was not traced. A VM that stays makes it happen once, before there is any load.

use std::thread;

use anyhow::{Context, Result};
use kvm_ioctls::Kvm;

/// Holds one VM, without CPUs and memory, until it is killed.
pub(crate) fn hold() -> Result<()> {
    let kvm = Kvm::new().context("Cannot open /dev/kvm")?;
    let _vm = kvm.create_vm().context("Cannot create a VM")?;
    loop {
        thread::park();
    }
}

//! Asking a vCPU to leave the guest, from another thread.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// `immediate_exit` of a vCPU's kvm_run page, through a mapping of its own: the vCPU's thread owns the other.
///
/// While it is set, KVM_RUN finishes what the last exit left over and returns with EINTR. Set before a signal
/// is sent, it leaves no moment in which the vCPU misses both (Documentation/virt/kvm/api.rst §5).
pub struct StopFlag {
    page: NonNull<kvm_run>,
}

// SAFETY: the mapping belongs to the process, and only the one byte is accessed, as an atomic.
unsafe impl Send for StopFlag {}
// SAFETY: as above.
unsafe impl Sync for StopFlag {}

impl StopFlag {
    /// The flag of `vcpu`.
    pub(super) fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open for as long as `vcpu` lives, which is borrowed meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses; it starts with the kvm_run page.
        let page = unsafe {
            mmap(
                ptr::null_mut(),
                size_of::<kvm_run>(),
                access,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { page })
    }

    /// Asks the vCPU to leave the guest, or lets it run again.
    pub fn set(&self, stop: bool) {
        self.byte().store(u8::from(stop), Ordering::Release);
    }

    /// Whether the vCPU shall leave the guest.
    pub fn is_set(&self) -> bool {
        self.byte().load(Ordering::Acquire) != 0
    }

    fn byte(&self) -> &AtomicU8 {
        let byte = self
            .page
            .cast::<u8>()
            .as_ptr()
            .wrapping_add(offset_of!(kvm_run, immediate_exit));
        // SAFETY: the byte lies in the mapping, which lives as long as `self`; through it, nobody accesses
        // the byte otherwise, and the kernel only reads it (READ_ONCE in kvm_vcpu_ioctl).
        unsafe { AtomicU8::from_ptr(byte) }
    }
}

impl Drop for StopFlag {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of`, of this length, and no reference to it is left.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), size_of::<kvm_run>()) };
    }
}

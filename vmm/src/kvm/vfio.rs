//! KVM's VFIO device: it must know the groups whose devices the guest has
//! (Documentation/virt/kvm/devices/vfio.rst).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_device_attr};
use kvm_ioctls::DeviceFd;
use strait_vfio::GroupListener;

/// The device of one virtual machine.
pub struct VfioGroups {
    pub(super) device: DeviceFd,
}

impl VfioGroups {
    fn set(&self, attribute: u32, group: BorrowedFd<'_>) -> io::Result<()> {
        let fd = group.as_raw_fd();
        let request = kvm_device_attr {
            flags: 0,
            group: KVM_DEV_VFIO_FILE,
            attr: attribute.into(),
            addr: (&raw const fd).addr() as u64,
        };
        self.device.set_device_attr(&request).map_err(io::Error::from)
    }
}

impl GroupListener for VfioGroups {
    fn add(&self, group: BorrowedFd<'_>) -> io::Result<()> {
        self.set(KVM_DEV_VFIO_FILE_ADD, group)
    }

    fn remove(&self, group: BorrowedFd<'_>) -> io::Result<()> {
        self.set(KVM_DEV_VFIO_FILE_DEL, group)
    }
}

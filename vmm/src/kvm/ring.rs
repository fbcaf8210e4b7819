//! The ring in which the kernel notes down writes that do not leave the guest (virt/kvm/coalesced_mmio.c).

use std::sync::Mutex;

use kvm_ioctls::VcpuFd;
use strait_devices::lock;
use strait_devices::{GuestAddress, Place};

/// Guards the ring, which all vCPUs share. Held until what was taken out has been passed on, so that no
/// vCPU reads a data register before the index that was written first has arrived.
#[derive(Default)]
pub(super) struct Ring(Mutex<()>);

impl Ring {
    /// Passes on every noted write, oldest first.
    pub(super) fn drain(&self, vcpu: &mut VcpuFd, pass_on: &mut dyn FnMut(Place, &[u8])) {
        let _guard = lock(&self.0);
        while let Ok(Some(write)) = vcpu.coalesced_mmio_read() {
            let place = match u16::try_from(write.phys_addr) {
                Ok(port) => Place::Port(port),
                Err(_) => Place::Memory(GuestAddress(write.phys_addr)),
            };
            pass_on(place, &write.data[..(write.len as usize).min(write.data.len())]);
        }
    }
}

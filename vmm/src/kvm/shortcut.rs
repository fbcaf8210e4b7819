//! Fewer exits: writes that the kernel notes down instead of leaving the guest.
//!
//! An index register only says what the next access to its data register means. KVM can keep such writes in
//! a ring (coalesced MMIO, virt/kvm/coalesced_mmio.c) and hand them over with the next exit, which halves
//! the exits of PCI configuration, the I/O APIC and the clock.

use std::sync::{Mutex, PoisonError};

use kvm_ioctls::{IoEventAddress, VcpuFd};
use strait_devices::{GuestAddress, Place};

use super::vm::{Vm, VmError, failed};

/// Ports end here; nothing in memory below is ever noted.
const PORTS_END: u64 = 1 << 16;

/// Guards the ring, which all vCPUs share. Held until what was taken out has been passed on, so that no
/// vCPU reads a data register before the index that was written first has arrived.
#[derive(Default)]
pub(super) struct Ring(Mutex<()>);

impl Ring {
    /// Passes on every noted write, oldest first.
    pub(super) fn drain(&self, vcpu: &mut VcpuFd, pass_on: &mut dyn FnMut(Place, &[u8])) {
        let _guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some(write)) = vcpu.coalesced_mmio_read() {
            let place = match u16::try_from(write.phys_addr) {
                Ok(port) => Place::Port(port),
                Err(_) => Place::Memory(GuestAddress(write.phys_addr)),
            };
            pass_on(place, &write.data[..(write.len as usize).min(write.data.len())]);
        }
    }
}

impl Vm {
    /// Notes down writes that lie within `len_bytes` at `place`; they arrive with the next exit.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn note_writes(&self, place: Place, len_bytes: u32) -> Result<(), VmError> {
        let address = match place {
            Place::Port(port) => IoEventAddress::Pio(u64::from(port)),
            Place::Memory(at) => {
                debug_assert!(at.0 >= PORTS_END);
                IoEventAddress::Mmio(at.0)
            }
        };
        self.fd()
            .register_coalesced_mmio(address, len_bytes)
            .map_err(failed("note writes of an index register"))
    }
}

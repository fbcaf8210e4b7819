//! Memory slots: guest physical memory that KVM maps without us.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use strait_devices::address_space::{MapError, MapListener, Mapping};
use strait_devices::lock;
use strait_devices::region::MemoryKind;

use super::vm::Vm;

/// Mirrors the mapped pieces of the address space into memory slots.
pub struct MemorySlots {
    vm: Arc<VmFd>,
    /// Slot numbers in use by guest address. A free number is any that is not in use.
    slots: Mutex<BTreeMap<u64, u32>>,
}

/// A mapping that KVM refused.
#[derive(Debug, thiserror::Error)]
#[error("KVM refuses memory slot {slot} at {at:#x}, {len:#x} bytes")]
struct SlotError {
    slot: u32,
    at: u64,
    len: u64,
    source: kvm_ioctls::Error,
}

impl MemorySlots {
    /// The slots of `vm`, none in use.
    pub fn new(vm: &Vm) -> Self {
        Self {
            vm: vm.fd().clone(),
            slots: Mutex::default(),
        }
    }

    fn set(&self, slot: u32, mapping: &Mapping, len: u64) -> Result<(), SlotError> {
        let at = mapping.at.0;
        let region = kvm_userspace_memory_region {
            slot,
            flags: match mapping.kind {
                MemoryKind::Image => KVM_MEM_READONLY,
                MemoryKind::Ram | MemoryKind::Device => 0,
            },
            guest_phys_addr: at,
            memory_size: len,
            userspace_addr: mapping.backing.host_address().0,
        };
        // SAFETY: a `HostBacking` keeps its range mapped while it lives. The address space holds it until
        // it has called `unmap`, which deletes the slot.
        let done = unsafe { self.vm.set_user_memory_region(region) };
        done.map_err(|source| SlotError {
            slot,
            at,
            len,
            source,
        })
    }
}

/// A slot a line, by guest address.
impl fmt::Display for MemorySlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, slot) in lock(&self.slots).iter() {
            writeln!(f, "slot {slot} at {at:#x}")?;
        }
        Ok(())
    }
}

impl MapListener for MemorySlots {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        let mut slots = lock(&self.slots);
        let free = (0..)
            .find(|slot| !slots.values().any(|used| used == slot))
            .unwrap_or(u32::MAX);
        self.set(free, mapping, mapping.backing.len_bytes())?;
        slots.insert(mapping.at.0, free);
        Ok(())
    }

    fn unmap(&self, mapping: &Mapping) {
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.remove(&mapping.at.0) else {
            return;
        };
        if let Err(error) = self.set(slot, mapping, 0) {
            log::error!("{error}: {}", error.source);
        }
    }

    fn hears_of_images(&self) -> bool {
        true
    }
}

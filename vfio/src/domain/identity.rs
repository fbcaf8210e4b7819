//! The guest's memory for DMA, at the guest's own addresses: for guests without a virtual IOMMU.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use strait_devices::address_space::{MapError, MapListener, Mapping};
use strait_devices::dma::{Access, Domain, Iova};
use strait_devices::region::MemoryKind;

use crate::lock::lock;

/// Mirrors the guest's memory map into a domain, IOVA = guest physical address.
///
/// RAM must be mapped. BARs are mapped so that one device can reach another (peer to peer); a BAR that
/// cannot be is a warning, for most guests never need it.
pub struct Identity {
    domain: Arc<dyn Domain>,
    peers: bool,
    /// Addresses where something is mapped, so that what failed is not unmapped.
    mapped: Mutex<BTreeSet<u64>>,
}

impl Identity {
    /// Mirrors RAM, and the BARs too if there are `peers` that could use them.
    pub fn new(domain: Arc<dyn Domain>, peers: bool) -> Self {
        Self {
            domain,
            peers,
            mapped: Mutex::default(),
        }
    }
}

impl MapListener for Identity {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        if mapping.kind == MemoryKind::Device && !self.peers {
            return Ok(());
        }
        let (at, backing) = (mapping.at.0, &mapping.backing);
        let access = Access::READ | Access::WRITE;
        // The lock is held over the call, so that map and unmap of a place keep their order.
        let mut mapped = lock(&self.mapped);
        match self
            .domain
            .map(Iova(at), backing.host_address(), backing.len_bytes(), access)
        {
            Ok(()) => {
                mapped.insert(at);
                Ok(())
            }
            Err(error) if mapping.kind == MemoryKind::Ram => Err(error),
            Err(error) => {
                log::warn!(
                    "DMA from other devices to {} at {at:#x} will not work: {error}",
                    mapping.name
                );
                Ok(())
            }
        }
    }

    fn unmap(&self, mapping: &Mapping) {
        let at = mapping.at.0;
        let mut mapped = lock(&self.mapped);
        if !mapped.remove(&at) {
            return;
        }
        if let Err(error) = self.domain.unmap(Iova(at), mapping.backing.len_bytes()) {
            log::error!("{} may stay reachable by DMA at {at:#x}: {error}", mapping.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use strait_devices::GuestAddress;
    use strait_devices::region::HostAddress;
    use strait_devices::testing::{FakeBacking, FakeDomain};

    use super::*;

    fn mapping(at: u64, kind: MemoryKind) -> Mapping {
        let backing = Arc::new(FakeBacking {
            host: HostAddress(0x7f00_0000_0000),
            len_bytes: 0x2000,
        });
        Mapping {
            at: GuestAddress(at),
            kind,
            backing,
            name: "piece".into(),
        }
    }

    #[test]
    fn ram_and_peer_bars_are_mapped_at_their_guest_address() {
        let domain = FakeDomain::new();
        let identity = Identity::new(domain.clone(), true);
        identity.map(&mapping(0x10_0000, MemoryKind::Ram)).expect("free");
        identity
            .map(&mapping(0xc000_0000, MemoryKind::Device))
            .expect("free");
        let at: Vec<_> = domain
            .mappings()
            .iter()
            .map(|m| (m.iova.0, m.len_bytes))
            .collect();
        assert_eq!(at, [(0x10_0000, 0x2000), (0xc000_0000, 0x2000)]);
    }

    #[test]
    fn bars_stay_out_when_nobody_could_use_them() {
        let domain = FakeDomain::new();
        let identity = Identity::new(domain.clone(), false);
        let bar = mapping(0xc000_0000, MemoryKind::Device);
        identity.map(&bar).expect("ignored");
        identity.unmap(&bar);
        assert!(domain.mappings().is_empty());
    }

    #[test]
    fn a_bar_that_cannot_be_mapped_is_no_error_and_is_not_unmapped() {
        let domain = FakeDomain::new();
        let identity = Identity::new(domain.clone(), true);
        domain.set_refused(true);
        let bar = mapping(0xc000_0000, MemoryKind::Device);
        identity.map(&bar).expect("a warning");
        identity.unmap(&bar);
        identity
            .map(&mapping(0, MemoryKind::Ram))
            .expect_err("RAM must be mapped");
    }

    #[test]
    fn what_was_mapped_is_unmapped() {
        let domain = FakeDomain::new();
        let identity = Identity::new(domain.clone(), true);
        let ram = mapping(0, MemoryKind::Ram);
        identity.map(&ram).expect("free");
        identity.unmap(&ram);
        assert!(domain.mappings().is_empty());
    }
}

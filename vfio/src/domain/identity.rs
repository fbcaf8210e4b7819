//! The guest's memory for DMA, at the guest's own addresses: for guests without a virtual IOMMU.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use strait_devices::address_space::{MapError, MapListener, Mapping};
use strait_devices::dma::{Access, Domain, Iova};
use strait_devices::region::{HostAddress, MemoryKind};

use strait_devices::lock;

/// Bytes that are pinned at a time: at most a second or two, even in pages of 4 KiB that were never touched, and 64 of the host's
/// mappings for 64 GiB.
pub const PIECE_BYTES: u64 = 1 << 30;

/// Mirrors the guest's memory map into a domain, IOVA = guest physical address.
///
/// RAM must be mapped. BARs are mapped so that one device can reach another (peer to peer), and a device its own:
/// `sym53c8xx` tells its chip the address of the scripts in the chip's memory, and QEMU's chip fetches them by DMA. A
/// BAR that cannot be mapped is a warning, for most guests never need it.
pub struct Identity {
    domain: Arc<dyn Domain>,
    go_on: GoOn,
    /// Addresses where something is mapped, so that what failed is not unmapped.
    mapped: Mutex<BTreeSet<u64>>,
}

/// Asked before each piece of RAM: an error ends the mapping.
pub type GoOn = Box<dyn Fn() -> Result<(), MapError> + Send + Sync>;

impl Identity {
    /// Mirrors RAM and BARs into `domain`, in which nothing is mapped yet.
    pub fn new(domain: Arc<dyn Domain>, go_on: GoOn) -> Self {
        Self {
            domain,
            go_on,
            mapped: Mutex::default(),
        }
    }

    /// Maps RAM before the mirror hears of the whole map: that takes long, and changes of the map wait for a mirror that
    /// is told of it.
    ///
    /// # Errors
    /// When a piece cannot be mapped; nothing is mapped then.
    pub fn map_ram(&self, ram: &[Mapping]) -> Result<(), MapError> {
        for (done, mapping) in ram.iter().enumerate() {
            if let Err(error) = self.map(mapping) {
                ram[..done].iter().for_each(|mapping| self.unmap(mapping));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Maps all of it, a piece at a time, or nothing.
    fn map_pieces(&self, mapping: &Mapping) -> Result<(), MapError> {
        let (at, host) = (mapping.at.0, mapping.backing.host_address().0);
        let total = mapping.backing.len_bytes();
        let mut done = 0;
        while done < total {
            let len = PIECE_BYTES.min(total - done);
            if let Err(error) = self.map_piece(mapping.kind, at + done, host + done, len) {
                self.take_back(mapping, done);
                return Err(error);
            }
            done += len;
        }
        Ok(())
    }

    fn map_piece(&self, kind: MemoryKind, at: u64, host: u64, len: u64) -> Result<(), MapError> {
        if kind == MemoryKind::Ram {
            (self.go_on)()?;
        }
        let access = Access::READ | Access::WRITE;
        self.domain.map(Iova(at), HostAddress(host), len, access)
    }

    fn take_back(&self, mapping: &Mapping, len: u64) {
        if len == 0 {
            return;
        }
        let at = mapping.at.0;
        if let Err(error) = self.domain.unmap_all(Iova(at), len) {
            log::error!("{} may stay reachable by DMA at {at:#x}: {error}", mapping.name);
        }
    }
}

impl MapListener for Identity {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        let at = mapping.at.0;
        // The lock is held over the calls, so that map and unmap of a place keep their order.
        let mut mapped = lock(&self.mapped);
        if mapped.contains(&at) {
            return Ok(());
        }
        match self.map_pieces(mapping) {
            Ok(()) => {
                mapped.insert(at);
                Ok(())
            }
            Err(error) if mapping.kind == MemoryKind::Ram => Err(error),
            Err(error) => {
                log::warn!(
                    "DMA to {} at {at:#x} will not work, which few devices need: {error}",
                    mapping.name
                );
                Ok(())
            }
        }
    }

    fn unmap(&self, mapping: &Mapping) {
        let mut mapped = lock(&self.mapped);
        if mapped.remove(&mapping.at.0) {
            self.take_back(mapping, mapping.backing.len_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use strait_devices::GuestAddress;
    use strait_devices::testing::{FakeBacking, FakeDomain};

    use super::*;

    fn identity(domain: &Arc<FakeDomain>) -> Identity {
        Identity::new(domain.clone(), Box::new(|| Ok(())))
    }

    fn mapping(at: u64, kind: MemoryKind) -> Mapping {
        mapping_of(at, 0x2000, kind)
    }

    fn mapping_of(at: u64, len_bytes: u64, kind: MemoryKind) -> Mapping {
        let backing = Arc::new(FakeBacking {
            host: HostAddress(0x7f00_0000_0000),
            len_bytes,
        });
        Mapping {
            at: GuestAddress(at),
            kind,
            backing,
            name: "piece".into(),
        }
    }

    #[test]
    fn ram_that_is_mapped_already_is_not_mapped_again() {
        let domain = FakeDomain::new();
        let identity = identity(&domain);
        let ram = [mapping(0, MemoryKind::Ram), mapping(0x4000, MemoryKind::Ram)];
        identity.map_ram(&ram).expect("mapped");
        let before = domain.mappings();
        assert_eq!(before.len(), 2);
        ram.iter().for_each(|piece| identity.map(piece).expect("known"));
        assert_eq!(domain.mappings(), before);
        ram.iter().for_each(|piece| identity.unmap(piece));
        assert!(domain.mappings().is_empty());
    }

    #[test]
    fn ram_and_bars_are_mapped_at_their_guest_address() {
        let domain = FakeDomain::new();
        let identity = identity(&domain);
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
    fn a_bar_that_cannot_be_mapped_is_no_error_and_is_not_unmapped() {
        let domain = FakeDomain::new();
        let identity = identity(&domain);
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
        let identity = identity(&domain);
        let ram = mapping(0, MemoryKind::Ram);
        identity.map(&ram).expect("free");
        identity.unmap(&ram);
        assert!(domain.mappings().is_empty());
    }

    #[test]
    fn large_ram_is_mapped_in_pieces_and_unmapped_as_one() {
        let domain = FakeDomain::new();
        let identity = identity(&domain);
        let ram = mapping_of(0, (2 << 30) + 0x1000, MemoryKind::Ram);
        identity.map(&ram).expect("free");
        let lens: Vec<_> = domain.mappings().iter().map(|m| m.len_bytes).collect();
        assert_eq!(lens, [1 << 30, 1 << 30, 0x1000]);
        identity.unmap(&ram);
        assert!(domain.mappings().is_empty());
    }

    #[test]
    fn who_gives_up_between_two_pieces_leaves_nothing_mapped() {
        let (domain, left) = (FakeDomain::new(), AtomicU32::new(2));
        let go_on = move || match left.fetch_sub(1, Ordering::Relaxed) {
            0 => Err("ended".into()),
            _ => Ok(()),
        };
        let identity = Identity::new(domain.clone(), Box::new(go_on));
        let error = identity
            .map(&mapping_of(0, 4 << 30, MemoryKind::Ram))
            .expect_err("given up after two");
        assert_eq!(error.to_string(), "ended");
        assert!(domain.mappings().is_empty());
    }
}

//! A machine whose guest has no IOMMU of its own: devices reach all its RAM, at its own addresses.

use std::sync::{Arc, Mutex};

use strait_devices::address_space::{AddressSpace, MapListener, Mapping};
use strait_devices::dma::{AlwaysMapped, Iova, RequesterId};
use strait_devices::irq::MsiRouter;
use strait_devices::irq::ioapic::PINS;
use strait_devices::pci::Upstream;
use strait_devices::region::MemoryKind;
use strait_devices::{Chain, Device, GuestAddress, lock};
use strait_vfio::Container;
use strait_vfio::domain::Identity;

use super::seam::{Iommu, Surroundings};
use crate::kvm::irq::GsiRouter;
use crate::machine::error::RunError;
use crate::machine::passthrough::{Opened, Passed};
use crate::machine::ram;
use crate::memory::GuestRam;
use crate::placement::IovaRanges;
use crate::signals::Signals;
use crate::user::User;

/// Interrupts go straight to the CPUs, and memory is mapped before the guest runs, or before its first device comes.
pub(super) struct Direct {
    router: Arc<GsiRouter>,
    space: Arc<AddressSpace>,
    ram: Arc<GuestRam>,
    /// Where the devices are.
    shared: Mutex<Option<Shared>>,
}

/// The container of all devices, and who mirrors the guest's memory into it.
struct Shared {
    container: Arc<Container>,
    mirror: Arc<dyn MapListener>,
}

/// A host that does not map what the guest's RAM is at.
#[derive(Debug, thiserror::Error)]
#[error(
    "the host's IOMMU does not map {start:#x}-{last:#x} for this device, where the guest has RAM; pass it when the guest \
     starts, which then has its RAM elsewhere"
)]
struct OutOfReach {
    start: u64,
    last: u64,
}

impl Direct {
    /// Maps all RAM for the DMA of `opened`; from then on the container follows every change of the memory map.
    ///
    /// # Errors
    /// When RAM cannot be mapped, or a signal ends the start.
    pub(super) fn connect_all(
        opened: Vec<Opened>,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Self, Vec<Passed>), RunError> {
        let direct = Self {
            router: surroundings.vm.router().clone(),
            space: surroundings.space.clone(),
            ram: surroundings.ram.clone(),
            shared: Mutex::default(),
        };
        if let Some(first) = opened.first() {
            let has_peers = opened.len() > 1 || surroundings.is_open;
            direct.map_all(&first.container, has_peers, surroundings.user)?;
        }
        let passed = direct.connect(opened);
        Ok((direct, passed))
    }

    /// Populates RAM first, which takes long and says so: mapping it then only pins what is there.
    fn map_all(&self, container: &Arc<Container>, has_peers: bool, user: &User) -> Result<(), RunError> {
        let populated = ram::populate(&self.ram, user)?;
        let mirror = identity(container, has_peers, &user.signals);
        self.mirror_into(container, mirror)?;
        populated.finish();
        Ok(())
    }

    fn mirror_into(&self, container: &Arc<Container>, mirror: Identity) -> Result<(), RunError> {
        let mirror: Arc<dyn MapListener> = Arc::new(mirror);
        self.space.add_listener(mirror.clone())?;
        *lock(&self.shared) = Some(Shared {
            container: container.clone(),
            mirror,
        });
        Ok(())
    }

    fn pieces(&self) -> Vec<Mapping> {
        let piece = |(at, backing)| Mapping {
            at,
            kind: MemoryKind::Ram,
            backing,
            name: "RAM".into(),
        };
        self.ram.blocks().map(piece).collect()
    }
}

fn identity(container: &Arc<Container>, has_peers: bool, signals: &Arc<Signals>) -> Identity {
    let signals = signals.clone();
    let go_on = Box::new(move || Ok(signals.go_on()?));
    Identity::new(container.clone(), has_peers, go_on)
}

impl Iommu for Direct {
    fn container(&self) -> Option<Arc<Container>> {
        lock(&self.shared).as_ref().map(|shared| shared.container.clone())
    }

    /// The first one finds nothing mapped. RAM is mapped before the mirror hears of the map, which nobody could change
    /// meanwhile.
    fn admit(&self, opened: &[Opened], signals: &Arc<Signals>) -> Result<(), RunError> {
        let Some(first) = opened.first().filter(|_| self.container().is_none()) else {
            return Ok(());
        };
        let reach = IovaRanges::everything().within(&first.container.facts()?.iova_ranges);
        let pieces = self.pieces();
        for piece in &pieces {
            let (start, last) = (piece.at.0, piece.at.0 + (piece.backing.len_bytes() - 1));
            if !reach.has(start, last) {
                return Err(OutOfReach { start, last }.into());
            }
        }
        self.ram.populate(|_| Ok::<(), RunError>(signals.go_on()?))?;
        let mirror = identity(&first.container, true, signals);
        mirror.map_ram(&pieces)?;
        self.mirror_into(&first.container, mirror)
    }

    fn connect(&self, opened: Vec<Opened>) -> Vec<Passed> {
        let passed = |opened: Opened| opened.connected(self.router.clone(), Arc::new(AlwaysMapped));
        opened.into_iter().map(passed).collect()
    }

    fn vacate(&self) {
        let gone = lock(&self.shared).take_if(|shared| shared.container.is_empty());
        if let Some(gone) = gone {
            self.space.remove_listener(&gone.mirror);
        }
    }

    fn ioapic_router(&self) -> Arc<dyn MsiRouter> {
        self.router.clone()
    }

    fn upstream(&self, _number: u8) -> Upstream {
        Upstream::plain(self.router.clone())
    }

    fn registers(&self) -> Option<Arc<dyn Device>> {
        None
    }

    /// The router outlives a reset, and would keep what the last boot set.
    fn reset(&self) {
        (0..PINS).for_each(|pin| self.router.set_pin(pin, None));
        if let Err(error) = self.router.commit() {
            log::warn!(
                "pins of the I/O APIC may keep the last boot's routes: {}",
                Chain(&*error)
            );
        }
    }

    fn acpi_tables(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn report(&self) -> String {
        "The guest has no IOMMU of its own (--viommu): nothing to report\n".to_owned()
    }

    fn translate(&self, _: RequesterId, _: Iova) -> Option<GuestAddress> {
        None
    }
}

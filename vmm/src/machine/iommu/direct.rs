//! A machine whose guest has no IOMMU of its own: devices reach all its RAM, at its own addresses.

use std::sync::Arc;
use std::time::Instant;

use strait_devices::dma::{AlwaysMapped, Iova, RequesterId};
use strait_devices::irq::MsiRouter;
use strait_devices::irq::ioapic::PINS;
use strait_devices::pci::Upstream;
use strait_devices::{Chain, Device, GuestAddress};
use strait_vfio::domain::Identity;

use super::seam::{Iommu, Surroundings};
use crate::kvm::irq::GsiRouter;
use crate::machine::error::RunError;
use crate::machine::passthrough::{Opened, Passed, containers};
use crate::output::Writer;
use crate::progress::{Pages, Progress, Style};

/// Interrupts go straight to the CPUs, and memory is mapped before the guest runs.
pub(super) struct Direct {
    router: Arc<GsiRouter>,
}

impl Direct {
    /// Maps all RAM for the DMA of `opened`; from then on the containers follow every change of the memory map.
    ///
    /// # Errors
    /// When RAM cannot be mapped, or a signal ends the start.
    pub(super) fn connect(
        opened: Vec<Opened>,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Self, Vec<Passed>), RunError> {
        if !opened.is_empty() {
            map_all(&opened, surroundings)?;
        }
        let router = surroundings.vm.router().clone();
        let passed = |opened: Opened| opened.connected(router.clone(), Arc::new(AlwaysMapped));
        let passed = opened.into_iter().map(passed).collect();
        Ok((Self { router }, passed))
    }
}

/// Populates RAM first, which takes long and says so: mapping it then only pins what is there.
fn map_all(opened: &[Opened], surroundings: &Surroundings<'_>) -> Result<(), RunError> {
    let Surroundings { space, ram, user, .. } = surroundings;
    let ranges = ram.host_ranges();
    let total = ranges.iter().map(|(start, end)| end - start).sum();
    let out = Writer(user.outputs.messages.clone());
    let mut progress = Progress::new(out, Style::of_stderr(), total, Instant::now());
    ram.populate(|bytes| {
        progress.advance(bytes, Instant::now());
        Ok::<(), RunError>(user.signals.go_on()?)
    })?;
    let has_peers = opened.len() > 1;
    for container in containers(opened) {
        let signals = user.signals.clone();
        let go_on = Box::new(move || Ok(signals.go_on()?));
        space.add_listener(Arc::new(Identity::new(container.clone(), has_peers, go_on)))?;
    }
    progress.finish(Instant::now(), || Pages::of(&ranges));
    Ok(())
}

impl Iommu for Direct {
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

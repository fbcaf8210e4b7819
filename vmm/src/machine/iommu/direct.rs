//! A machine whose guest has no IOMMU of its own: devices reach all its RAM, at its own addresses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use strait_devices::address_space::{AddressSpace, MapListener, Mapping};
use strait_devices::dma::{AlwaysMapped, Iova, RequesterId};
use strait_devices::irq::MsiRouter;
use strait_devices::irq::ioapic::PINS;
use strait_devices::pci::Upstream;
use strait_devices::region::MemoryKind;
use strait_devices::{Chain, Device, GuestAddress, lock};
use strait_vfio::Container;
use strait_vfio::domain::{Identity, PIECE_BYTES};

use super::reach::{self, Reach};
use super::seam::{Iommu, Surroundings};
use crate::kvm::irq::GsiRouter;
use crate::machine::error::RunError;
use crate::machine::passthrough::{Opened, Passed};
use crate::machine::ram;
use crate::memory::GuestRam;
use crate::output::Output;
use crate::placement::IovaRanges;
use crate::progress::Style;
use crate::signals::{Ended, Signals};

/// Interrupts go straight to the CPUs, and memory is mapped before its first device may do DMA.
///
/// Field order is drop order: what is still being mapped is given up first.
pub(super) struct Direct {
    /// The mapping for those devices that are there when the guest starts.
    reach: Option<Reach>,
    router: Arc<GsiRouter>,
    memory: Arc<Memory>,
}

/// RAM that is pinned in a second or two once it is there, even in pages of 4 KiB.
const QUICK: u64 = 4 << 30;

/// The guest's memory, and where its devices are.
struct Memory {
    space: Arc<AddressSpace>,
    ram: Arc<GuestRam>,
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
    /// Begins to map all RAM for the DMA of `opened`, the last of which goes on while the guest starts; from then on the
    /// container follows every change of the memory map.
    ///
    /// # Errors
    /// When RAM cannot be mapped, or a signal ends the start.
    pub(super) fn connect_all(
        opened: Vec<Opened>,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Self, Vec<Passed>), RunError> {
        let memory = Arc::new(Memory {
            space: surroundings.space.clone(),
            ram: surroundings.ram.clone(),
            shared: Mutex::default(),
        });
        let first = opened.first().map(|first| first.container.clone());
        let reach = first.map(|container| {
            let (memory, messages) = (memory.clone(), surroundings.user.outputs.messages.clone());
            Reach::begin(surroundings.events.clone(), move |state| {
                match memory.map_all(&container, messages, state) {
                    Err(_) if state.go_on().is_ok() && is_left(&container) => Ok(()),
                    mapped => mapped,
                }
            })
        });
        if let Some(reach) = &reach {
            reach.wait_until_near(&|| surroundings.user.signals.go_on())?;
        }
        let router = surroundings.vm.router().clone();
        let gate = reach.as_ref().map(Reach::gate);
        let passed = |opened: Opened| {
            let gate = gate.clone().unwrap_or_else(|| Arc::new(AlwaysMapped));
            opened.connected(router.clone(), gate)
        };
        let passed = opened.into_iter().map(passed).collect();
        let direct = Self {
            reach,
            router: surroundings.vm.router().clone(),
            memory,
        };
        Ok((direct, passed))
    }

    /// Until the devices of the start are settled, nobody knows where they are; at the end of the machine nobody waits.
    fn shared(&self) -> MutexGuard<'_, Option<Shared>> {
        if let Some(reach) = &self.reach {
            reach.wait();
        }
        lock(&self.memory.shared)
    }

    fn go_on(&self) -> Result<(), Ended> {
        self.reach.as_ref().map_or(Ok(()), Reach::go_on)
    }
}

impl Memory {
    /// Populates RAM first, which takes long and says so: mapping it then only pins what is there. It is mapped before the
    /// mirror hears of the map, which nobody could change meanwhile.
    fn map_all(
        &self,
        container: &Arc<Container>,
        messages: Arc<Output>,
        state: &Arc<reach::State>,
    ) -> Result<(), RunError> {
        let bytes = self.pieces().iter().map(|piece| piece.backing.len_bytes()).sum();
        // The terminal may be the guest's console by then: no line of it is drawn over.
        let populated = ram::populate(&self.ram, messages, Style::Lines, &|left| {
            if bytes <= QUICK {
                state.expect(left);
            }
            // No device needs it any more.
            match container.is_empty() {
                true => Err(Ended),
                false => state.go_on(),
            }
        })?;
        let mirror = self.mirror(container, pinning(state.clone(), bytes))?;
        populated.finish();
        self.mirror_into(container, mirror)
    }

    /// RAM in the container, and who will mirror the map there.
    fn mirror(
        &self,
        container: &Arc<Container>,
        go_on: impl Fn() -> Result<(), Ended> + Send + Sync + 'static,
    ) -> Result<Identity, RunError> {
        let mirror = Identity::new(container.clone(), Box::new(move || Ok(go_on()?)));
        mirror.map_ram(&self.pieces())?;
        Ok(mirror)
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

/// All devices have left, and the container's mappings with them. The kernel may know of it first: a device that is unbound is
/// closed before this process takes note.
fn is_left(container: &Container) -> bool {
    (0..10).any(|_| {
        let is_empty = container.is_empty();
        if !is_empty {
            thread::sleep(Duration::from_millis(100));
        }
        is_empty
    })
}

/// Asked before each piece of so many bytes that is pinned: tells how long the rest will take.
fn pinning(state: Arc<reach::State>, bytes: u64) -> impl Fn() -> Result<(), Ended> + Send + Sync {
    let (start, begun) = (Instant::now(), AtomicU64::new(0));
    move || {
        let done = begun.fetch_add(1, Ordering::Relaxed) * PIECE_BYTES;
        if bytes <= QUICK {
            state.expect(Duration::ZERO);
        } else if done > 0 {
            let left = bytes.saturating_sub(done) as f64 / done as f64;
            state.expect(start.elapsed().mul_f64(left));
        }
        state.go_on()
    }
}

impl Iommu for Direct {
    fn container(&self) -> Option<Arc<Container>> {
        self.shared().as_ref().map(|shared| shared.container.clone())
    }

    /// The first one finds nothing mapped.
    fn admit(&self, opened: &[Opened], signals: &Arc<Signals>) -> Result<(), RunError> {
        let Some(first) = opened.first().filter(|_| self.container().is_none()) else {
            return Ok(());
        };
        self.go_on()?;
        let mappable = IovaRanges::everything().within(&first.container.facts()?.iova_ranges);
        for piece in self.memory.pieces() {
            let (start, last) = (piece.at.0, piece.at.0 + (piece.backing.len_bytes() - 1));
            if !mappable.has(start, last) {
                return Err(OutOfReach { start, last }.into());
            }
        }
        self.memory
            .ram
            .populate(|_| Ok::<(), RunError>(signals.go_on()?))?;
        let signals = signals.clone();
        let mirror = self.memory.mirror(&first.container, move || signals.go_on())?;
        self.memory.mirror_into(&first.container, mirror)
    }

    fn connect(&self, opened: Vec<Opened>) -> Vec<Passed> {
        let passed = |opened: Opened| opened.connected(self.router.clone(), Arc::new(AlwaysMapped));
        opened.into_iter().map(passed).collect()
    }

    fn vacate(&self) {
        let gone = self.shared().take_if(|shared| shared.container.is_empty());
        if let Some(gone) = gone {
            self.memory.space.remove_listener(&gone.mirror);
        }
    }

    fn give_up(&self) {
        if let Some(reach) = &self.reach {
            reach.give_up();
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

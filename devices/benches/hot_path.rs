//! What the hot paths cost on this machine, with neither KVM nor VFIO behind them: the virtual IOMMU from the
//! write of its queue's tail to the status word, and an access to configuration space.
//!
//! `cargo bench -p strait-devices`. The best of many batches is printed: everything else only adds to it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strait_devices::address_space::{MapListener, Mapping};
use strait_devices::dma::{Access, Domain, DomainError, Iova, Requester};
use strait_devices::iommu::vtd::{AddressWidth, Vtd, VtdConfig};
use strait_devices::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use strait_devices::pci::RootComplex;
use strait_devices::pci::ecam::Ecam;
use strait_devices::region::{HostAddress, HostBacking, MemoryKind};
use strait_devices::{Device, GuestAddress};
use vm_memory::{Bytes, GuestMemoryMmap};

const BATCHES: usize = 200;
const ROUNDS: u32 = 50;

const RAM: u64 = 64 << 20;
const PAGE: u64 = 4096;
const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const RING: u64 = 0x3000;
const STATUS: u64 = 0x4000;
/// Four levels of tables, one page each.
const TABLES: u64 = 0x10_0000;
const LEAVES: u64 = TABLES + 3 * PAGE;
const BUFFER: u64 = 0x200_0000;
const READ_WRITE: u64 = 3;

fn main() {
    for (pages, mask) in [(1, 0), (512, 9)] {
        let mut guest = Guest::new();
        let pair = best(|| guest.map_and_unmap(pages, mask));
        println!("map and unmap of {pages} pages: {pair:?}");
    }
    let ecam = Ecam::new(Arc::new(RootComplex::new(Vec::new())));
    let mut data = [0; 4];
    let read = best(|| timed(|| ecam.read(black_box(0), &mut data)));
    println!("read of configuration space: {read:?}");
}

/// The shortest mean of a batch.
fn best(mut round: impl FnMut() -> Duration) -> Duration {
    let mut batch = || (0..ROUNDS).map(|_| round()).sum::<Duration>() / ROUNDS;
    let mut shortest = batch();
    for _ in 0..BATCHES {
        shortest = shortest.min(batch());
    }
    shortest
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A guest that drives one device behind the unit.
struct Guest {
    vtd: Arc<Vtd>,
    memory: Arc<GuestMemoryMmap>,
    tail: u64,
}

impl Guest {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("64 MiB");
        let memory = Arc::new(memory);
        let config = VtdConfig {
            width: AddressWidth::Bits48,
            caching_mode: true,
            interrupt_remapping: true,
            extended_interrupts: true,
            snoop_control: false,
        };
        let requester = Requester {
            bus: Arc::default(),
            devfn: 0,
        };
        requester.bus.set(1);
        let devices = vec![(requester, Arc::new(Nothing) as Arc<dyn Domain>)];
        let vtd = Vtd::new(config, memory.clone(), Arc::new(Nothing), devices);
        let ram = Mapping {
            at: GuestAddress(0),
            kind: MemoryKind::Ram,
            backing: Arc::new(Nothing),
            name: "ram".into(),
        };
        vtd.map(&ram).expect("RAM");
        let guest = Self { vtd, memory, tail: 0 };
        guest.start();
        guest
    }

    /// Root and context entries of 01:00.0, tables down to the leaves, queue and translation on.
    fn start(&self) {
        self.store(ROOT + 16, CONTEXTS | 1);
        self.store(CONTEXTS, TABLES | 1);
        self.store(CONTEXTS + 8, 5 << 8 | 2);
        for level in 0..3 {
            self.store(TABLES + level * PAGE, (TABLES + (level + 1) * PAGE) | READ_WRITE);
        }
        self.write(0x90, &RING.to_le_bytes());
        self.write(0x20, &ROOT.to_le_bytes());
        self.write(0x18, &(1u32 << 26 | 1 << 30).to_le_bytes());
        self.write(0x18, &(1u32 << 26 | 1 << 31).to_le_bytes());
    }

    /// An invalidation and a wait after the map, and again after the unmap. Only the unit's time counts.
    fn map_and_unmap(&mut self, pages: u64, mask: u64) -> Duration {
        let mut took = Duration::ZERO;
        for rights in [READ_WRITE, 0] {
            for page in 0..pages {
                self.store(LEAVES + page * 8, (BUFFER + page * PAGE) | rights);
            }
            for descriptor in [[5 << 16 | 3 << 4 | 2, mask], [7 << 32 | 1 << 5 | 5, STATUS]] {
                self.store(RING + self.tail, descriptor[0]);
                self.store(RING + self.tail + 8, descriptor[1]);
                self.tail = (self.tail + 16) % PAGE;
            }
            took += timed(|| self.write(0x88, &self.tail.to_le_bytes()));
        }
        took
    }

    fn store(&self, at: u64, value: u64) {
        self.memory.write_obj(value, GuestAddress(at)).expect("RAM");
    }

    fn write(&self, at: u64, data: &[u8]) {
        let _none = self.vtd.write(at, data);
    }
}

/// A host that does all it is asked at once.
#[derive(Debug)]
struct Nothing;

impl Domain for Nothing {
    fn map(&self, _: Iova, _: HostAddress, _: u64, _: Access) -> Result<(), DomainError> {
        Ok(())
    }

    fn unmap(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        Ok(())
    }

    fn unmap_all(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        Ok(())
    }
}

impl HostBacking for Nothing {
    fn host_address(&self) -> HostAddress {
        HostAddress(0x7f00_0000_0000)
    }

    fn len_bytes(&self) -> u64 {
        RAM
    }
}

impl MsiRouter for Nothing {
    fn send(&self, _: MsiMessage) {}

    fn set_pin(&self, _: u8, _: Option<MsiMessage>) {}

    fn commit(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        Err("there are no routes".into())
    }
}

//! A function of an emulated device, made of the models that passed devices have in front of them.

use std::sync::{Arc, Mutex};

use crate::irq::MsiRouter;
use crate::pci::Function;
use crate::pci::bar::{self, BAR_COUNT, BAR_REGISTERS_LEN, Bar, BarKind, Bars, Places};
use crate::pci::capability::{Msi, Msix, msi, msix};
use crate::pci::config_space::ConfigSpace;
use crate::pci::rom_bar::{ROM_BAR_LEN, RomBar};
use crate::pci::spec::{command, header};
use crate::place::Place;
use crate::region::{Device, Effect, Remap};
use crate::region::{HostAddress, MappedPiece, Region};
use crate::testing::{FakeBacking, FakeBinder, lock};

/// Where the capabilities stand.
const MSI: u16 = 0x50;
const MSIX: u16 = 0x70;
const VECTORS: u16 = 40;
const PAGE: u64 = 0x1000;

/// The function.
pub(super) struct Endpoint {
    core: Mutex<Core>,
    msix: Arc<Mutex<Msix>>,
    regions: [Option<Arc<Region>>; BAR_COUNT],
    rom: Arc<Region>,
}

struct Core {
    config: ConfigSpace,
    bars: Bars,
    rom: RomBar,
    msi: Msi,
}

impl Core {
    fn places(&self) -> (Places, Option<Place>) {
        let command = self.config.u16(header::COMMAND);
        (self.bars.places(command), self.rom.place(command))
    }
}

impl Endpoint {
    /// BARs of every kind: memory with the MSI-X table in it, ports, and 64 bits of address.
    pub(super) fn new(router: &Arc<dyn MsiRouter>, host: u64) -> Arc<Self> {
        let bar = |kind, len_bytes| Some(Bar { kind, len_bytes });
        let memory = bar(BarKind::Memory32 { prefetchable: false }, 4 * PAGE);
        let wide = bar(BarKind::Memory64 { prefetchable: true }, 16 * PAGE);
        let bars = Bars::new([memory, bar(BarKind::Io, 32), wide, None, None, None]).expect("sound sizes");
        let mut config = ConfigSpace::new();
        config.set(header::VENDOR_ID, &[0x86, 0x80, 0x34, 0x12]);
        config.allow_write(header::COMMAND, &[0x07, 0x04]);
        let shape = msi::MsiShape::from_control(0x018a);
        let msix = Msix::new(VECTORS, router.clone(), FakeBinder::new()).expect("a legal count");
        let msix = Arc::new(Mutex::new(msix));
        let table = Arc::new(Table(msix.clone()));
        let regions = std::array::from_fn(|index| match index {
            0 => Some(region(table.clone(), 4 * PAGE, PAGE, host)),
            1 => Some(Region::trapped(table.clone(), 32)),
            2 => Some(region(table.clone(), 16 * PAGE, 0, host + 16 * PAGE)),
            _ => None,
        });
        Arc::new(Self {
            core: Mutex::new(Core {
                config,
                bars,
                rom: RomBar::new(0x800),
                msi: Msi::new(shape, router.clone(), FakeBinder::new()),
            }),
            msix,
            regions,
            rom: Region::trapped(table, 0x800),
        })
    }

    fn effect(&self, before: &(Places, Option<Place>), core: &Core) -> Effect {
        let (from, to) = (before, core.places());
        let mut remaps = bar::remaps(&from.0, &to.0, &self.regions);
        if from.1 != to.1 {
            remaps.push(Remap::new(self.rom.clone(), from.1, to.1));
        }
        Effect::Remap(remaps)
    }
}

/// Mapped from `offset` on.
fn region(device: Arc<dyn Device>, len_bytes: u64, offset: u64, host: u64) -> Arc<Region> {
    let backing = FakeBacking {
        host: HostAddress(host),
        len_bytes: len_bytes - offset,
    };
    let backing = Arc::new(backing);
    Region::with_pieces(device, len_bytes, vec![MappedPiece { offset, backing }])
}

impl Function for Endpoint {
    fn name(&self) -> &str {
        "endpoint"
    }

    fn read_config(&self, register: u16, data: &mut [u8]) {
        let core = lock(&self.core);
        core.config.read(register, data);
        match register {
            header::BAR0.. if register < header::BAR0 + BAR_REGISTERS_LEN => {
                core.bars.read(register - header::BAR0, data);
            }
            header::ROM_BAR.. if register < header::ROM_BAR + ROM_BAR_LEN => {
                core.rom.read(register - header::ROM_BAR, data);
            }
            MSI.. if register < MSI + 0x18 => core.msi.read(register - MSI, data),
            _ => {}
        }
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        let mut core = lock(&self.core);
        let before = core.places();
        core.config.write(register, data);
        match (register, data) {
            (header::BAR0.., _) if register < header::BAR0 + BAR_REGISTERS_LEN => {
                core.bars.write(register - header::BAR0, data);
            }
            (header::ROM_BAR.., _) if register < header::ROM_BAR + ROM_BAR_LEN => {
                core.rom.write(register - header::ROM_BAR, data);
            }
            (MSI.., _) if register < MSI + 0x18 => core.msi.write(register - MSI, data),
            (MSIX, &[_, _, low, high]) => lock(&self.msix).set_control(u16::from_le_bytes([low, high])),
            _ => {}
        }
        self.effect(&before, &core)
    }

    fn reset(&self) -> Effect {
        let mut core = lock(&self.core);
        let before = core.places();
        core.config.set(header::COMMAND, &[0, 0]);
        core.bars.reset();
        core.rom.reset();
        core.msi.reset();
        lock(&self.msix).reset();
        self.effect(&before, &core)
    }
}

/// The vector table, and behind it the pending bits.
struct Table(Arc<Mutex<Msix>>);

impl Device for Table {
    fn name(&self) -> &str {
        "endpoint"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset.checked_sub(u64::from(VECTORS) * msix::ENTRY_LEN) {
            None => lock(&self.0).read_table(offset, data),
            Some(offset) => lock(&self.0).read_pending(offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        lock(&self.0).write_table(offset, data);
        Effect::None
    }
}

/// Memory and port decoding.
pub(super) const DECODE: u16 = command::MEMORY | command::IO;

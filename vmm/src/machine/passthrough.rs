//! The passed devices of a machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use strait_devices::dma::BusMaster;
use strait_devices::irq::MsiRouter;
use strait_devices::pci::rom_bar::MAX_ROM_LEN;
use strait_vfio::domain::{Container, ContainerError, GroupListener};
use strait_vfio::pci::{Appearance, RomSource};
use strait_vfio::{Device, Hardware as _, InterruptKind};

use super::error::RunError;
use super::managed::Borrowed;
use super::seat::{self, Seat};
use crate::config::{DeviceConfig, RomConfig};
use crate::placement::IovaRanges;
use crate::signals::Signals;

/// A file that cannot stand in for a ROM.
#[derive(Debug, thiserror::Error)]
enum RomError {
    #[error("cannot read the ROM file {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("the ROM file {path} has {len} bytes; a ROM has 1 to {MAX_ROM_LEN}")]
    Length { path: PathBuf, len: usize },
}

/// An open device, in a container in which nothing is mapped for it yet.
pub(super) struct Opened {
    /// What messages call it.
    name: String,
    /// What clients of the control socket call it.
    id: String,
    /// The function as VFIO has it open.
    pub(super) device: Arc<Device>,
    /// Where its DMA is mapped; others may be in it.
    pub(super) container: Arc<Container>,
    /// The port behind which the guest finds it, and its number there.
    pub(super) seat: Seat,
    appearance: Appearance,
    borrowed: Option<Arc<Borrowed>>,
}

/// A passed device, with its ways to memory and CPUs.
///
/// Field order is drop order: the device is closed before it goes back to its driver.
pub(super) struct Passed {
    /// What messages call it.
    pub(super) name: String,
    /// What clients of the control socket call it.
    pub(super) id: String,
    /// The function as VFIO has it open.
    pub(super) device: Arc<Device>,
    /// The port behind which the guest finds it, and its number there.
    pub(super) seat: Seat,
    /// How it looks to the guest.
    pub(super) appearance: Appearance,
    /// Where its interrupts go.
    pub(super) router: Arc<dyn MsiRouter>,
    /// Hears when it becomes bus master, and when it leaves.
    pub(super) gate: Arc<dyn BusMaster>,
    /// Where it was taken from the host when it came: it goes back with the last function of its slot.
    _borrowed: Option<Arc<Borrowed>>,
}

impl Opened {
    /// The device with its ways to CPUs and memory.
    pub(super) fn connected(self, router: Arc<dyn MsiRouter>, gate: Arc<dyn BusMaster>) -> Passed {
        let Self {
            name,
            id,
            device,
            seat,
            appearance,
            borrowed,
            container: _,
        } = self;
        Passed {
            name,
            id,
            device,
            seat,
            appearance,
            router,
            gate,
            _borrowed: borrowed,
        }
    }
}

/// Opens each device, into one container for all or each into its own (`apart`), of which `groups` hears.
///
/// # Errors
/// When a device cannot be opened, or a signal ends the start. What was opened is released.
pub(super) fn open(
    configs: &[DeviceConfig],
    groups: Option<&Arc<dyn GroupListener>>,
    apart: bool,
    signals: &Signals,
) -> Result<Vec<Opened>, RunError> {
    let Some(groups) = groups else {
        return Ok(Vec::new());
    };
    let wished = seat::seated(configs)?.into_iter();
    let wished: Vec<(DeviceConfig, Seat)> = wished.map(|(config, seat)| (config.clone(), seat)).collect();
    open_into(None, &wished, groups, apart, signals, &None)
}

/// The same for devices that have seats, into `container` where there is one. They hold on to what was `borrowed` from the
/// host for them.
///
/// # Errors
/// When a device cannot be opened, a ROM cannot be read, or a signal ends it. What was opened is released.
pub(super) fn open_into(
    container: Option<Arc<Container>>,
    wished: &[(DeviceConfig, Seat)],
    groups: &Arc<dyn GroupListener>,
    apart: bool,
    signals: &Signals,
    borrowed: &Option<Arc<Borrowed>>,
) -> Result<Vec<Opened>, RunError> {
    let appearances: Vec<Appearance> = wished
        .iter()
        .map(|(config, seat)| appearance(config, *seat))
        .collect::<Result<_, _>>()?;
    let mut shared = container.filter(|_| !apart);
    let mut opened: Vec<Opened> = Vec::new();
    for ((config, seat), appearance) in wished.iter().zip(appearances) {
        signals.go_on()?;
        let container = match &shared {
            Some(container) => container.clone(),
            None => Container::open(Some(groups.clone()))?,
        };
        shared = Some(container.clone()).filter(|_| !apart);
        opened.push(Opened {
            name: config.to_string(),
            id: config.id(),
            device: Device::open(&container, config.host)?,
            container,
            seat: *seat,
            appearance,
            borrowed: borrowed.clone(),
        });
    }
    Ok(opened)
}

/// How many interrupt vectors a device can have.
pub(super) fn vectors(device: &Device) -> u32 {
    let kinds = [InterruptKind::Msi, InterruptKind::Msix].into_iter();
    let counts = kinds.map(|kind| device.interrupt(kind).count);
    counts.max().unwrap_or(0)
}

/// The containers of `opened`, each once.
pub(super) fn containers(opened: &[Opened]) -> impl Iterator<Item = &Arc<Container>> {
    let same = |a: &&Opened, b: &Opened| Arc::ptr_eq(&a.container, &b.container);
    let is_first = move |(at, one): &(usize, &Opened)| !opened[..*at].iter().any(|other| same(one, other));
    let first = opened.iter().enumerate().filter(is_first);
    first.map(|(_, one)| &one.container)
}

/// The I/O addresses at which the host's IOMMU lets all of them reach memory.
///
/// # Errors
/// When the kernel does not describe it.
pub(super) fn iova_ranges(opened: &[Opened]) -> Result<IovaRanges, ContainerError> {
    containers(opened).try_fold(IovaRanges::everything(), |ranges, container| {
        Ok(ranges.within(&container.facts()?.iova_ranges))
    })
}

fn appearance(config: &DeviceConfig, seat: Seat) -> Result<Appearance, RomError> {
    Ok(Appearance {
        rom: rom(&config.rom)?,
        is_multi_function: seat.is_shared,
        hides_msix: config.hides_msix,
    })
}

fn rom(config: &RomConfig) -> Result<RomSource, RomError> {
    let path = match config {
        RomConfig::Own => return Ok(RomSource::Hardware),
        RomConfig::Hidden => return Ok(RomSource::Hidden),
        RomConfig::File(path) => path,
    };
    let bytes = fs::read(path).map_err(|source| RomError::Read(path.clone(), source))?;
    match bytes.len() {
        1..=MAX_LEN => Ok(RomSource::Bytes(bytes.into())),
        len => Err(RomError::Length {
            path: path.clone(),
            len,
        }),
    }
}

const MAX_LEN: usize = MAX_ROM_LEN as usize;

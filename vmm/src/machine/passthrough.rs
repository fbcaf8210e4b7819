//! The passed devices of a machine: opened, and let at the guest's memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use strait_devices::address_space::{AddressSpace, PlaceError};
use strait_devices::pci::rom_bar::MAX_ROM_LEN;
use strait_vfio::Device;
use strait_vfio::domain::{Container, ContainerError, GroupListener, Identity};
use strait_vfio::host::{Root, entries_needed};
use strait_vfio::pci::{Appearance, RomSource};

use super::RunError;
use super::seat::{self, Origin, Seat};
use crate::config::{DeviceConfig, RomConfig};
use crate::kvm::Vm;
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

/// Open devices. Without a virtual IOMMU they are all in one container that holds the guest's RAM at the
/// guest's own addresses; behind one, each is in its own.
pub(super) struct HostDevices {
    passed: Vec<Passed>,
    /// Root ports, whose slots stay when their devices leave.
    ports: u8,
    containers: Vec<Arc<Container>>,
}

/// A passed device.
pub(super) struct Passed {
    /// Its number in the order they were given, which is its number behind the virtual IOMMU.
    pub(super) index: usize,
    /// What messages call it.
    pub(super) name: String,
    /// The open function.
    pub(super) device: Arc<Device>,
    /// Where it sits.
    pub(super) seat: Seat,
    /// How it looks to the guest.
    pub(super) appearance: Appearance,
}

impl HostDevices {
    /// Opens each device, into one container for all or each into its own, in which nothing is mapped yet.
    ///
    /// # Errors
    /// When a device cannot be opened, or a signal ends the start. What was opened is released.
    pub(super) fn open(
        configs: &[DeviceConfig],
        vm: &Vm,
        apart: bool,
        signals: &Signals,
    ) -> Result<Self, RunError> {
        let seats = seats_of(configs)?;
        let appearances = appearances(configs, &seats)?;
        let kvm: Arc<dyn GroupListener> = Arc::new(vm.vfio_groups()?);
        let (mut devices, mut containers) = (Vec::new(), Vec::new());
        for config in configs {
            signals.go_on()?;
            if apart || containers.is_empty() {
                containers.push(Container::open(Some(kvm.clone()))?);
            }
            devices.extend(
                containers
                    .last()
                    .map(|container| Device::open(container, config.host))
                    .transpose()?,
            );
        }
        let names = configs.iter().map(DeviceConfig::to_string).collect();
        Ok(Self::seated(devices, names, seats, appearances, containers))
    }

    /// Where the host's IOMMU lets all of them reach.
    ///
    /// # Errors
    /// When the kernel does not describe it.
    pub(super) fn reach(&self) -> Result<IovaRanges, ContainerError> {
        self.containers
            .iter()
            .try_fold(IovaRanges::everything(), |reach, container| {
                Ok(reach.within(&container.facts()?.iova_ranges))
            })
    }

    /// Maps all guest RAM for their DMA; from then on the container follows every change of the memory map.
    ///
    /// # Errors
    /// When RAM cannot be mapped, or a signal ends the start.
    pub(super) fn map_all(&self, space: &AddressSpace, signals: &Arc<Signals>) -> Result<(), PlaceError> {
        let has_peers = self.passed.len() > 1;
        self.containers.iter().try_for_each(|container| {
            let signals = signals.clone();
            let go_on = Box::new(move || Ok(signals.go_on()?));
            space.add_listener(Arc::new(Identity::new(container.clone(), has_peers, go_on)))
        })
    }

    /// Says so if a guest of `memory_bytes` that maps page by page may need more mappings than each device has.
    pub(super) fn check_entries(&self, memory_bytes: u64) -> Result<(), ContainerError> {
        let needed = entries_needed(memory_bytes);
        let mut left = Vec::new();
        for container in &self.containers {
            left.extend(container.facts()?.mappings_left.map(u64::from));
        }
        if let (Some(fewest), Some(first)) = (left.into_iter().min(), self.passed.first())
            && fewest < needed
        {
            log::warn!(
                "--viommu: the host has {fewest} DMA mappings for each device, and the guest may need {needed}, one a page; \
                 maps beyond that fail. `strait host bind --dma-entries {needed} {}` before the start makes room",
                first.device.bdf()
            );
        }
        Ok(())
    }

    /// The containers, behind a virtual IOMMU one for each device.
    pub(super) fn containers(&self) -> &[Arc<Container>] {
        &self.containers
    }

    fn seated(
        devices: Vec<Arc<Device>>,
        names: Vec<String>,
        seats: Vec<Seat>,
        appearances: Vec<Appearance>,
        containers: Vec<Arc<Container>>,
    ) -> Self {
        let ports = seats.iter().map(|seat| seat.port).max().unwrap_or(0);
        let parts = devices.into_iter().zip(names).zip(seats).zip(appearances);
        let passed = |(index, (((device, name), seat), appearance))| Passed {
            index,
            name,
            device,
            seat,
            appearance,
        };
        let passed = parts.enumerate().map(passed).collect();
        Self {
            passed,
            ports,
            containers,
        }
    }

    /// The devices that are there, in the order they were given.
    pub(super) fn passed(&self) -> &[Passed] {
        &self.passed
    }

    /// How many root ports there are, with numbers from 1 on.
    pub(super) fn ports(&self) -> u8 {
        self.ports
    }

    /// Gives up the devices behind `port`.
    pub(super) fn remove(&mut self, port: u8) {
        self.passed.retain(|passed| passed.seat.port != port);
    }
}

/// Where each device will sit.
pub(super) fn seats_of(configs: &[DeviceConfig]) -> io::Result<Vec<Seat>> {
    let root = Root::real();
    let origin = |config: &DeviceConfig| {
        let device = root.device(config.host)?;
        Ok(Origin {
            bdf: config.host,
            is_virtual: device.is_some_and(|device| device.is_virtual),
        })
    };
    let origins: Vec<_> = configs.iter().map(origin).collect::<io::Result<_>>()?;
    Ok(seat::seats(&origins))
}

fn appearances(configs: &[DeviceConfig], seats: &[Seat]) -> Result<Vec<Appearance>, RomError> {
    let appearance = |(config, seat): (&DeviceConfig, &Seat)| {
        Ok(Appearance {
            rom: rom(&config.rom)?,
            is_multi_function: seat.is_shared,
            hides_msix: config.hides_msix,
        })
    };
    configs.iter().zip(seats).map(appearance).collect()
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

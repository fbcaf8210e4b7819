//! A physical function opened through VFIO.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use strait_devices::lock;
use strait_devices::region::HostBacking;
use vfio_bindings::bindings::vfio as uapi;

use crate::aer::ErrorCounts;
use crate::domain::{Container, Group, GroupError};
use crate::hardware::{Hardware, HardwareRegion, InterruptInfo, InterruptKind, RegionInfo};
use crate::host::{HostBdf, reset_methods};
use crate::host_events::HostEvents;
use crate::hush::Hush;
use crate::mapping::Mapping;
use crate::reset::{self, ResetMethod};
use crate::reset_state::ResetState;
use crate::sys;

const SYSFS_DEVICES: &str = "/sys/bus/pci/devices";

/// A function that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// VFIO does not give the function.
    #[error("cannot open {bdf} through VFIO")]
    Open {
        /// The function's address on the host.
        bdf: HostBdf,
        /// The cause, as the kernel tells it.
        #[source]
        source: GroupError,
    },
    /// It is in no IOMMU group.
    #[error("{0} is in no IOMMU group; is the host's IOMMU on?")]
    NoGroup(HostBdf),
    /// The kernel does not describe it.
    #[error("cannot ask VFIO about the {what} of {bdf}")]
    Describe {
        /// The function's address on the host.
        bdf: HostBdf,
        /// The part that the kernel was asked about.
        what: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
}

/// A physical function that this process owns.
pub struct Device {
    bdf: HostBdf,
    name: String,
    sysfs: PathBuf,
    regions: Vec<Region>,
    interrupts: [InterruptInfo; 3],
    reset: ResetState,
    events: HostEvents,
    /// Errors that were told of.
    errors: Mutex<ErrorCounts>,
    file: File,
    /// After the device, which is to be closed then, and while the group is ours; none where the kernel resets it.
    _hush: Option<Hush>,
    /// After the device, which leaves it.
    group: Arc<Group>,
}

struct Region {
    id: HardwareRegion,
    info: RegionInfo,
    /// Where it stands in the device's file.
    offset: u64,
}

impl Device {
    /// Opens a function that is bound to vfio-pci, and puts its group into `container`.
    ///
    /// # Errors
    /// When the group cannot be opened or attached, or the kernel does not describe the function. Run
    /// [`crate::host::check`] first: it says why.
    pub fn open(container: &Arc<Container>, bdf: HostBdf) -> Result<Arc<Self>, DeviceError> {
        let sysfs = Path::new(SYSFS_DEVICES).join(bdf.to_string());
        let failed = |source| DeviceError::Open { bdf, source };
        let number = group_number(&sysfs).ok_or(DeviceError::NoGroup(bdf))?;
        let group = container.group(number).map_err(failed)?;
        let name = bdf.to_string();
        let opened = group.open_device(&name).map_err(failed)?;
        let describe = |what: String| move |source| DeviceError::Describe { bdf, what, source };
        let file = opened.as_fd();
        let info = sys::device_info(file).map_err(describe("flags".to_owned()))?;
        let resettable = info.u32(4) & uapi::VFIO_DEVICE_FLAGS_RESET != 0;
        let reset = ResetState::new(resettable, reset_methods(&sysfs));
        let region = |id: HardwareRegion| Region::ask(file, id).map_err(describe(id.to_string()));
        let regions = HardwareRegion::ALL
            .into_iter()
            .map(region)
            .collect::<Result<_, _>>()?;
        let interrupts = InterruptKind::ALL.map(|kind| interrupt_info(file, kind));
        let events = HostEvents::listen(file).map_err(describe("events".to_owned()))?;
        let errors = Mutex::new(ErrorCounts::read(&sysfs));
        // What the kernel resets when it opens it, it resets when it closes it, too.
        let hush = (!reset.is_fresh()).then(|| Hush::new(bdf, &sysfs));
        Ok(Arc::new(Self {
            bdf,
            name,
            sysfs,
            regions,
            interrupts,
            reset,
            events,
            errors,
            file: opened,
            _hush: hush,
            group,
        }))
    }

    /// The host's name of the function.
    pub fn bdf(&self) -> HostBdf {
        self.bdf
    }

    /// What becomes readable when the host has something to tell of the device.
    pub fn host_events(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.events.descriptors()
    }

    /// True when the host asked for the device since the last call; it asks again and again until the device
    /// is dropped.
    pub fn is_asked_for(&self) -> bool {
        self.events.take_request()
    }

    /// The uncorrectable errors that the device reported since the last call, in words for a user.
    pub fn new_errors(&self) -> Option<String> {
        if !self.events.take_error() {
            return None;
        }
        let now = ErrorCounts::read(&self.sysfs);
        let mut told = lock(&self.errors);
        let names = now.since(&told).join(", ");
        *told = now;
        Some(match names.is_empty() {
            true => "an uncorrectable error, which the host does not name".to_owned(),
            false => names,
        })
    }

    /// Resets those of `devices`, all that this process has, that can be reset only together and are not
    /// fresh, each bus once. The others reset themselves.
    pub fn reset_buses(devices: &[Arc<Self>]) {
        let groups: BTreeSet<u32> = devices.iter().map(|device| device.group.number()).collect();
        let mut done: Vec<HostBdf> = Vec::new();
        for device in devices {
            let ResetMethod::Bus(functions) = device.reset_method(&groups) else {
                continue;
            };
            let members = || devices.iter().filter(|other| functions.contains(&other.bdf));
            let all_fresh = members().all(|other| other.reset.is_fresh());
            if functions.len() < 2 || all_fresh || done.contains(&device.bdf) {
                continue;
            }
            done.extend(functions);
            let groups: Vec<BorrowedFd<'_>> = members().map(|member| member.group.file()).collect();
            let result = reset::reset_bus(device.file.as_fd(), &groups);
            if let Err(error) = &result {
                log::warn!(
                    "{}: its bus cannot be reset, and keeps its state: {error}",
                    device.bdf
                );
            }
            for other in members() {
                other.reset.set_fresh(true);
            }
        }
    }

    /// Resets what of `devices`, which were just opened, the kernel did not reset well enough, so that nothing is left to
    /// reset when they are taken into use. It may take a second for each.
    pub fn freshen(devices: &[Arc<Self>]) {
        Self::reset_buses(devices);
        for device in devices {
            if device.prepare().is_ok() {
                device.reset.set_fresh(true);
            }
        }
    }

    /// How the function is reset, chosen and said at the first call. `groups` are ours.
    fn reset_method(&self, groups: &BTreeSet<u32>) -> &ResetMethod {
        self.reset.method(self.bdf, self.file.as_fd(), groups)
    }

    fn find(&self, id: HardwareRegion) -> io::Result<&Region> {
        self.regions
            .iter()
            .find(|region| region.id == id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Where `len` bytes at `offset` of a region stand in the file.
    fn locate(&self, id: HardwareRegion, offset: u64, len: u64) -> io::Result<u64> {
        let region = self.find(id)?;
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= region.info.len_bytes);
        let at = region.offset.checked_add(offset).filter(|_| inside);
        at.ok_or_else(|| {
            let range = format!("{len:#x} bytes at {offset:#x}");
            io::Error::other(format!(
                "{range} are not in the {:#x} bytes of {id}",
                region.info.len_bytes
            ))
        })
    }
}

/// The number of the function's group, the name of what a link in sysfs leads to.
fn group_number(sysfs: &Path) -> Option<u32> {
    let link = sysfs.join("iommu_group").read_link().ok()?;
    link.file_name()?.to_str()?.parse().ok()
}

impl Region {
    /// A BAR that the kernel does not describe is one that the function does not have.
    fn ask(device: BorrowedFd<'_>, id: HardwareRegion) -> io::Result<Self> {
        let info = match sys::region_info(device, id.index()) {
            Ok(info) => info,
            Err(error) if id != HardwareRegion::Config => {
                log::debug!("{id} is not described: {error}");
                return Ok(Self {
                    id,
                    info: RegionInfo::default(),
                    offset: 0,
                });
            }
            Err(error) => return Err(error),
        };
        let (flags, cap_offset) = (info.u32(4), info.u32(12));
        let sparse = (flags & uapi::VFIO_REGION_INFO_FLAG_CAPS != 0)
            .then(|| info.capability(cap_offset, uapi::VFIO_REGION_INFO_CAP_SPARSE_MMAP))
            .flatten();
        let mappable = flags & uapi::VFIO_REGION_INFO_FLAG_MMAP != 0;
        let info_of = RegionInfo {
            len_bytes: info.u64(16),
            mappable,
            sparse: sparse.map(sparse_areas),
        };
        Ok(Self {
            id,
            info: info_of,
            offset: info.u64(24),
        })
    }
}

/// The areas of a `vfio_region_info_cap_sparse_mmap`: a count at byte 8, pairs of offset and size from 16.
fn sparse_areas(capability: &[u8]) -> Vec<(u64, u64)> {
    let count = sys::field(capability, 8).map_or(0, u32::from_ne_bytes) as usize;
    let area = |at: &[u8]| {
        Some((
            u64::from_ne_bytes(sys::field(at, 0)?),
            u64::from_ne_bytes(sys::field(at, 8)?),
        ))
    };
    let areas = capability.get(16..).unwrap_or_default();
    areas.chunks_exact(16).take(count).filter_map(area).collect()
}

fn interrupt_info(device: BorrowedFd<'_>, kind: InterruptKind) -> InterruptInfo {
    match sys::irq_info(device, kind.index()) {
        Ok(info) => InterruptInfo {
            count: info.u32(12),
            resizable: info.u32(4) & uapi::VFIO_IRQ_INFO_NORESIZE == 0,
        },
        Err(error) => {
            log::debug!("{kind} is not described: {error}");
            InterruptInfo::default()
        }
    }
}

impl Hardware for Device {
    fn name(&self) -> &str {
        &self.name
    }

    fn region(&self, region: HardwareRegion) -> RegionInfo {
        self.find(region)
            .map(|region| region.info.clone())
            .unwrap_or_default()
    }

    fn read(&self, region: HardwareRegion, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = self.locate(region, offset, data.len() as u64)?;
        sys::read_at(self.file.as_fd(), at, data)
    }

    fn write(&self, region: HardwareRegion, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.locate(region, offset, data.len() as u64)?;
        sys::write_at(self.file.as_fd(), at, data)
    }

    fn map(&self, region: HardwareRegion, offset: u64, len_bytes: u64) -> io::Result<Arc<dyn HostBacking>> {
        self.locate(region, offset, len_bytes)?;
        let mapping = Mapping::new(self.file.as_fd(), self.find(region)?.offset, offset, len_bytes)?;
        Ok(Arc::new(mapping))
    }

    fn interrupt(&self, kind: InterruptKind) -> InterruptInfo {
        self.interrupts[kind as usize]
    }

    fn set_interrupts(
        &self,
        kind: InterruptKind,
        start: u16,
        events: &[Option<BorrowedFd<'_>>],
    ) -> io::Result<u32> {
        let end = u32::from(start).saturating_add(u32::try_from(events.len()).unwrap_or(u32::MAX));
        if end > self.interrupt(kind).count {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sys::set_irq_events(self.file.as_fd(), kind.index(), start, events)
    }

    fn disable_interrupts(&self, kind: InterruptKind) -> io::Result<()> {
        sys::disable_irqs(self.file.as_fd(), kind.index())
    }

    fn unmask_intx(&self) -> io::Result<()> {
        sys::unmask_irq(self.file.as_fd(), InterruptKind::Intx.index())
    }

    fn reset(&self) -> io::Result<()> {
        let file = self.file.as_fd();
        let result = match self.reset_method(&BTreeSet::from([self.group.number()])) {
            ResetMethod::Function(_) => sys::device_reset(file),
            method @ ResetMethod::Bus(_) if method.is_alone(self.bdf) => {
                reset::reset_bus(file, &[self.group.file()])
            }
            ResetMethod::Bus(_) | ResetMethod::Nothing(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        self.reset.note(result.is_ok());
        result
    }

    fn prepare(&self) -> io::Result<()> {
        let method = self.reset_method(&BTreeSet::from([self.group.number()]));
        if self.reset.take_fresh() || matches!(method, ResetMethod::Nothing(_)) {
            Ok(())
        } else {
            self.reset()
        }
    }

    fn retire(&self) {
        self.reset.retire();
    }
}

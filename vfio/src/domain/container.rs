//! A legacy VFIO container with the type1v2 IOMMU.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Weak};

use strait_devices::dma::{Access, Domain, DomainError, Iova};
use strait_devices::region::HostAddress;
use vfio_bindings::bindings::vfio as uapi;
use vfio_ioctls::{VfioContainer, VfioError};

use super::file::{ContainerFile, GroupListener};
use super::group::{Group, GroupError};
use crate::sys;
use strait_devices::lock;

/// A container that does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// There is no container to be had, or none with a type1v2 IOMMU.
    #[error("cannot open a VFIO container; are the modules vfio and vfio_iommu_type1 loaded?")]
    Open(#[source] VfioError),
    /// The IOMMU does not describe itself.
    #[error("cannot ask the container about its IOMMU")]
    Describe(#[source] io::Error),
    /// A range cannot be mapped.
    #[error("cannot map {len_bytes:#x} bytes at {iova:#x} for DMA{}", hint(.source))]
    Map {
        /// Start as the devices see it.
        iova: u64,
        /// Length of the range.
        len_bytes: u64,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// A range cannot be unmapped.
    #[error("cannot unmap {len_bytes:#x} bytes at {iova:#x} from DMA")]
    Unmap {
        /// Start as the devices see it.
        iova: u64,
        /// Length of the range.
        len_bytes: u64,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
}

/// What errno of `VFIO_IOMMU_MAP_DMA` means for a user (`vfio_dma_do_map`,
/// drivers/vfio/vfio_iommu_type1.c).
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; it must be locked in memory: raise the limit (ulimit -l, LimitMEMLOCK=) above the guest's \
             memory, or run as root"
        }
        Some(libc::ENOSPC) => {
            "; it has no room for more mappings: raise dma_entry_limit (strait host bind --dma-entries)"
        }
        Some(libc::EINVAL) => "; the host's IOMMU does not reach this address, or reserves it",
        Some(libc::EEXIST) => "; a part of it is mapped already",
        _ => "",
    }
}

/// What the host's IOMMU can do for the attached groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IommuFacts {
    /// Addresses that can be mapped, ascending; empty when the kernel does not say.
    pub iova_ranges: Vec<RangeInclusive<u64>>,
    /// Page sizes, one bit each.
    pub page_sizes: u64,
    /// Mappings that can still be made.
    pub mappings_left: Option<u32>,
}

/// An I/O address space of the host. The IOMMU is there from the first device that is opened with it until
/// the last is dropped; mappings can be made, and facts be asked, only in between.
///
/// `vfio-ioctls` opens it. Groups and mappings are ours: it takes a group out with the first of its devices,
/// and maps everything for reading and writing.
pub struct Container {
    file: Arc<ContainerFile>,
    groups: Mutex<BTreeMap<u32, Weak<Group>>>,
}

impl Container {
    /// An empty container, whose groups `listener` hears of.
    ///
    /// # Errors
    /// When the host has no VFIO, or not with a type1v2 IOMMU.
    pub fn open(listener: Option<Arc<dyn GroupListener>>) -> Result<Arc<Self>, ContainerError> {
        let vfio = VfioContainer::new(None).map_err(ContainerError::Open)?;
        Ok(Arc::new(Self {
            file: Arc::new(ContainerFile::new(vfio, listener)),
            groups: Mutex::default(),
        }))
    }

    /// Whether no device is open in it. Nothing is mapped then.
    pub fn is_empty(&self) -> bool {
        self.file.is_empty()
    }

    /// Group `number`, put in if it is not yet.
    pub(crate) fn group(&self, number: u32) -> Result<Arc<Group>, GroupError> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get(&number).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let group = Group::open(&self.file, number)?;
        groups.insert(number, Arc::downgrade(&group));
        Ok(group)
    }

    /// Takes away every mapping in a range that cuts none, and tells how many bytes they had. Where nothing can
    /// be mapped, all is as asked.
    fn take_away(&self, iova: Iova, len_bytes: u64) -> Result<u64, ContainerError> {
        if self.file.is_empty() {
            return Ok(len_bytes);
        }
        sys::unmap_dma(self.file.as_fd(), iova.0, len_bytes).map_err(|source| ContainerError::Unmap {
            iova: iova.0,
            len_bytes,
            source,
        })
    }

    /// True when the IOMMU makes all DMA of the devices coherent with the CPUs' caches, whatever they ask for
    /// (`VFIO_DMA_CC_IOMMU`).
    pub fn is_coherent(&self) -> bool {
        sys::group::is_coherent(self.file.as_fd())
    }

    /// Asks the kernel what the IOMMU can do.
    ///
    /// # Errors
    /// When there is no device in the container.
    pub fn facts(&self) -> Result<IommuFacts, ContainerError> {
        let info = sys::iommu_info(self.file.as_fd()).map_err(ContainerError::Describe)?;
        let (flags, page_sizes, cap_offset) = (info.u32(4), info.u64(8), info.u32(16));
        let capability = |id| {
            info.capability(cap_offset, id)
                .filter(|_| flags & uapi::VFIO_IOMMU_INFO_CAPS != 0)
        };
        let ranges = capability(uapi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
        let left = capability(uapi::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
        Ok(IommuFacts {
            iova_ranges: ranges.map(iova_ranges).unwrap_or_default(),
            page_sizes,
            mappings_left: left
                .and_then(|capability| sys::field(capability, 8))
                .map(u32::from_ne_bytes),
        })
    }
}

/// The ranges of a `vfio_iommu_type1_info_cap_iova_range`: a count at byte 8, pairs of first and last
/// address from 16.
fn iova_ranges(capability: &[u8]) -> Vec<RangeInclusive<u64>> {
    let count = sys::field(capability, 8).map_or(0, u32::from_ne_bytes) as usize;
    let address = |at: &[u8], offset| sys::field(at, offset).map(u64::from_ne_bytes);
    let range = |at: &[u8]| Some(address(at, 0)?..=address(at, 8)?);
    let areas = capability.get(16..).unwrap_or_default();
    areas.chunks_exact(16).take(count).filter_map(range).collect()
}

impl Domain for Container {
    fn map(&self, iova: Iova, host: HostAddress, len_bytes: u64, access: Access) -> Result<(), DomainError> {
        let mut flags = 0;
        if access.contains(Access::READ) {
            flags |= uapi::VFIO_DMA_MAP_FLAG_READ;
        }
        if access.contains(Access::WRITE) {
            flags |= uapi::VFIO_DMA_MAP_FLAG_WRITE;
        }
        let request = uapi::vfio_iommu_type1_dma_map {
            argsz: size_of::<uapi::vfio_iommu_type1_dma_map>() as u32,
            flags,
            vaddr: host.0,
            iova: iova.0,
            size: len_bytes,
        };
        sys::map_dma(self.file.as_fd(), &request).map_err(|source| {
            ContainerError::Map {
                iova: iova.0,
                len_bytes,
                source,
            }
            .into()
        })
    }

    fn unmap(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        let done = self.take_away(iova, len_bytes)?;
        if done != len_bytes {
            return Err(ContainerError::Unmap {
                iova: iova.0,
                len_bytes,
                source: io::Error::other(format!("{done:#x} bytes were mapped")),
            }
            .into());
        }
        Ok(())
    }

    fn unmap_all(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError> {
        self.take_away(iova, len_bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stop_at_the_end_of_the_answer() {
        let mut capability = vec![0; 16];
        capability[8] = 200;
        capability.extend(0x1000u64.to_ne_bytes());
        capability.extend(0xfedf_ffffu64.to_ne_bytes());
        capability.extend([0; 7]);
        assert_eq!(iova_ranges(&capability), [0x1000..=0xfedf_ffff]);
        assert!(iova_ranges(&[]).is_empty());
    }

    #[test]
    fn a_full_memlock_limit_is_explained() {
        let source = io::Error::from_raw_os_error(libc::ENOMEM);
        let error = ContainerError::Map {
            iova: 0,
            len_bytes: 0x1000,
            source,
        };
        assert!(error.to_string().contains("ulimit -l"), "{error}");
    }
}

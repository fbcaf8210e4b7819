//! The file of a container, and the groups that are in it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use vfio_ioctls::VfioContainer;

use crate::sys;
use strait_devices::lock;

/// Someone who must know the groups in use: KVM's VFIO device, for cache coherence and for devices whose
/// driver needs the VM.
pub trait GroupListener: Send + Sync {
    /// The group with this file is in use now.
    ///
    /// # Errors
    /// What the kernel says; the group is not used then.
    fn add(&self, group: BorrowedFd<'_>) -> io::Result<()>;

    /// The group is no longer in use.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove(&self, group: BorrowedFd<'_>) -> io::Result<()>;
}

/// A container as its groups know it.
pub(super) struct ContainerFile {
    vfio: VfioContainer,
    listener: Option<Arc<dyn GroupListener>>,
    groups: Mutex<BTreeSet<u32>>,
}

impl ContainerFile {
    /// Without a group; `listener` hears of each that comes and goes.
    pub(super) fn new(vfio: VfioContainer, listener: Option<Arc<dyn GroupListener>>) -> Self {
        Self {
            vfio,
            listener,
            groups: Mutex::default(),
        }
    }

    /// Without a group there is no IOMMU, and nothing is mapped.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.groups).is_empty()
    }

    /// Group `number`, whose file is in the container, is in use now. The IOMMU comes with the first.
    ///
    /// # Errors
    /// What could not be done, as part of a sentence, and why; the group is not in use then.
    pub(super) fn add(&self, number: u32, group: BorrowedFd<'_>) -> Result<(), (&'static str, io::Error)> {
        let mut groups = lock(&self.groups);
        if groups.is_empty() {
            sys::group::set_type1v2(self.as_fd()).map_err(|error| ("give an IOMMU to", error))?;
        }
        if let Some(listener) = &self.listener {
            listener.add(group).map_err(|error| ("tell KVM of", error))?;
        }
        groups.insert(number);
        Ok(())
    }

    /// Group `number` leaves the container.
    pub(super) fn remove(&self, number: u32, group: BorrowedFd<'_>) {
        if let Some(listener) = &self.listener
            && let Err(error) = listener.remove(group)
        {
            log::warn!("KVM cannot forget a VFIO group: {error}");
        }
        lock(&self.groups).remove(&number);
    }
}

impl AsFd for ContainerFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::group::container_file(&self.vfio)
    }
}

//! An IOMMU group in a container: what must be ours before one of its devices is.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::file::ContainerFile;
use crate::sys;

/// A group that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Its file does not open.
    #[error("cannot open /dev/vfio/{group}; is another process using the group?")]
    Open {
        /// Number of the group, as in /dev/vfio.
        group: u32,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// The host uses a part of it.
    #[error("group {0} has devices that a driver of the host uses; `strait host list --groups` shows them")]
    NotViable(u32),
    /// The kernel refuses a step.
    #[error("cannot {step} group {group}")]
    Refused {
        /// Number of the group, as in /dev/vfio.
        group: u32,
        /// The step that failed, as part of a sentence.
        step: &'static str,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
}

/// A group that is in a container, until the last of its devices is closed.
pub(crate) struct Group {
    number: u32,
    file: File,
    container: Arc<ContainerFile>,
}

impl Group {
    /// Opens group `number` and puts it into `container`, which gets its IOMMU with its first group.
    pub(super) fn open(container: &Arc<ContainerFile>, number: u32) -> Result<Arc<Self>, GroupError> {
        let path = format!("/dev/vfio/{number}");
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|source| GroupError::Open {
            group: number,
            source,
        })?;
        let refused = |step| {
            move |source| GroupError::Refused {
                group: number,
                step,
                source,
            }
        };
        if !sys::group::is_viable(file.as_fd()).map_err(refused("ask about"))? {
            return Err(GroupError::NotViable(number));
        }
        sys::group::set_container(file.as_fd(), container.as_fd())
            .map_err(refused("put into a container"))?;
        container
            .add(number, file.as_fd())
            .map_err(|(step, source)| refused(step)(source))?;
        Ok(Arc::new(Self {
            number,
            file,
            container: Arc::clone(container),
        }))
    }

    /// Its number, as in /dev/vfio.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its file, the proof that it is ours.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Opens one of its devices.
    pub(crate) fn open_device(&self, name: &str) -> Result<File, GroupError> {
        let opened = CString::new(name)
            .map_err(io::Error::other)
            .and_then(|name| sys::group::open_device(self.file(), &name));
        opened.map_err(|source| GroupError::Refused {
            group: self.number,
            step: "open a device of",
            source,
        })
    }
}

impl Drop for Group {
    /// With the last group of a container the kernel takes its IOMMU and all mappings away. It takes out a
    /// group by itself when the host's driver lets go of its last device (`vfio_device_remove_group`).
    fn drop(&mut self) {
        self.container.remove(self.number, self.file());
        match sys::group::unset_container(self.file()) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                log::warn!("group {} stays in its container: {error}", self.number);
            }
            _ => {}
        }
    }
}

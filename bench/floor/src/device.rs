//! A passed function, as the kernel gives it out: the container with its IOMMU, the group, and the function, which is reset
//! as it is opened (`vfio_pci_core_enable`, drivers/vfio/pci/vfio_pci_core.c).

use std::fs::{File, read_link};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::sys::{self, Mapping};

/// What is open for as long as the function is in use.
pub(crate) struct Device {
    container: File,
    _group: File,
    _function: File,
}

impl Device {
    /// Opens the function with this address, with its domain or without, which vfio-pci has.
    pub(crate) fn open(address: &str) -> Result<Self> {
        let bdf = match address.matches(':').count() {
            1 => &format!("0000:{address}"),
            _ => address,
        };
        let folder = Path::new("/sys/bus/pci/devices").join(bdf);
        ensure!(
            folder.exists(),
            "there is no PCI device {address}; `strait host list` shows those that are"
        );
        let group = read_link(folder.join("iommu_group"))
            .with_context(|| format!("{bdf} is in no IOMMU group; `strait host doctor {bdf}` says why"))?;
        let number = group
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let open = |path: &str| {
            let file = File::options().read(true).write(true).open(path);
            file.with_context(|| format!("cannot open {path}"))
        };
        let container = open("/dev/vfio/vfio")?;
        let group = open(&format!("/dev/vfio/{number}"))?;
        sys::join_container(&group, &container)
            .with_context(|| format!("IOMMU group {number} cannot be put into a container"))?;
        let function = sys::open_function(&group, bdf).with_context(|| format!("cannot open {bdf}"))?;
        Ok(Self {
            container,
            _group: group,
            _function: function,
        })
    }

    /// Lets it reach `len` bytes of `ram` from `offset` on, at this I/O address, which pins them.
    pub(crate) fn map(&self, ram: &Mapping, offset: usize, len: usize, iova: u64) -> io::Result<()> {
        sys::map_dma(&self.container, ram, offset, len, iova)
    }
}

//! The words in which a device is refused: what is the case, and what to do about it.

use std::fmt;
use std::io;

use super::HostBdf;

/// Why devices cannot be passed through, and what to do: a fact and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// sysfs does not answer.
    Sysfs {
        /// The function's address on the host.
        bdf: HostBdf,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// The host has no such function.
    NoSuchDevice(HostBdf),
    /// It is named twice.
    Twice(HostBdf),
    /// A bridge stays with the host.
    Bridge(HostBdf),
    /// Its DMA carries the address of a controller that keeps its PCI domain (`pci_real_dma_dev`).
    Behind {
        /// The function's address on the host.
        bdf: HostBdf,
        /// The controller, as Intel VMD.
        keeper: HostBdf,
        /// Name of its driver, as in sysfs.
        driver: String,
    },
    /// There is no IOMMU.
    NoIommu {
        /// The function's address on the host.
        bdf: HostBdf,
        /// How this host gets one.
        remedy: String,
    },
    /// Another driver has it.
    NotBound {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of the driver that has it.
        driver: String,
        /// How vfio-pci gets it.
        remedy: String,
    },
    /// Others in the group belong to the host.
    NotViable {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Number of its IOMMU group.
        group: u32,
        /// The members and their drivers.
        culprits: String,
        /// How they get out of the way.
        remedy: String,
    },
    /// The firmware keeps a part of memory for itself in the device's address space.
    Reserved {
        /// The function's address on the host.
        bdf: HostBdf,
        /// The range, first and last address.
        range: (u64, u64),
    },
    /// Interrupts are not remapped, and VFIO is not told to do without.
    UnsafeInterrupts {
        /// Which function could forge them.
        bdf: HostBdf,
        /// How they get remapped.
        remedy: String,
    },
    /// VFIO is not there.
    NoVfio(&'static str),
    /// Another process has the group.
    InUse {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Path of the group's file.
        path: String,
        /// The process that holds it, as far as it can be seen.
        holder: String,
    },
    /// The group's file is not ours to open.
    Permission {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Path of the file.
        path: String,
    },
    /// The group's file does not open.
    Open {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Path of the file.
        path: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// The guest's memory cannot be locked.
    Memlock {
        /// Bytes that must be lockable.
        needed: u64,
        /// Bytes that this process may lock.
        limit: u64,
    },
}

impl CheckError {
    /// What is the case.
    pub fn fact(&self) -> String {
        match self {
            Self::Sysfs { bdf, .. } => format!("cannot read what sysfs says of {bdf}"),
            Self::NoSuchDevice(bdf) => format!("there is no PCI device {bdf}"),
            Self::Twice(bdf) => format!("{bdf} is given twice"),
            Self::Bridge(bdf) => format!("{bdf} is a bridge and stays with the host"),
            Self::Behind { bdf, keeper, driver } => format!(
                "{bdf} is behind {keeper} ({driver}) and does DMA under its address, so it cannot be passed \
                 while {driver} has {keeper}"
            ),
            Self::NoIommu { bdf, .. } => format!("{bdf} is in no IOMMU group, so the host's IOMMU is off"),
            Self::NotBound { bdf, driver, .. } => format!("{bdf} is bound to {driver} instead of vfio-pci"),
            Self::NotViable {
                bdf, group, culprits, ..
            } => {
                format!("{bdf} shares IOMMU group {group} with devices that the host uses: {culprits}")
            }
            Self::Reserved {
                bdf,
                range: (first, last),
            } => format!(
                "the firmware reserves memory {first:#x}-{last:#x} for {bdf} (RMRR), and the kernel \
                 gives no such device away"
            ),
            Self::UnsafeInterrupts { bdf, .. } => {
                format!("the host's IOMMU does not remap interrupts, which {bdf} could then forge")
            }
            Self::NoVfio(what) => format!("the host has no {what}"),
            Self::InUse { bdf, path, holder } => format!("{bdf} is in use: {path} is held by {holder}"),
            Self::Permission { bdf, path } => format!("no permission to open {path} for {bdf}"),
            Self::Open { bdf, path, .. } => format!("cannot open {path} for {bdf}"),
            Self::Memlock { needed, limit } => format!(
                "the guest's memory must be locked for DMA: {} MiB, but the limit is {} MiB",
                needed.div_ceil(1 << 20),
                limit >> 20
            ),
        }
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchDevice(_) => "`strait host list` shows those there are".to_owned(),
            Self::Bridge(_) => "pass the devices behind it".to_owned(),
            Self::Behind { bdf, keeper, .. } => format!(
                "turn VMD off in the firmware setup, which is no way for a disk of a RAID volume that VMD \
                 makes: {bdf} is a device like any other then; or pass {keeper} with all that is behind it, \
                 where strait host doctor {keeper} says that the host can do without it"
            ),
            Self::NoIommu { remedy, .. }
            | Self::NotBound { remedy, .. }
            | Self::NotViable { remedy, .. }
            | Self::UnsafeInterrupts { remedy, .. } => remedy.clone(),
            Self::Reserved { .. } => {
                "look in the firmware setup for what holds it (remote management, USB legacy support), or \
                 pass another device"
                    .to_owned()
            }
            Self::NoVfio(_) => "load VFIO with: modprobe -a vfio-pci vfio_iommu_type1".to_owned(),
            Self::Permission { path, .. } => {
                format!("run as root, or give yourself the file: sudo chown $USER {path}")
            }
            Self::Memlock { needed, .. } => format!(
                "run as root, or raise it: `USER - memlock {0}` in /etc/security/limits.conf and a new login, \
                 LimitMEMLOCK= of a service, or `ulimit -l {0}` where the hard limit allows it",
                needed.div_ceil(1 << 10)
            ),
            Self::Sysfs { .. } | Self::Twice(_) | Self::InUse { .. } | Self::Open { .. } => return None,
        })
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fact())?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

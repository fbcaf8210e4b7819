//! The description of a virtual machine: the values of `strait run`, checked as far as they can be without the host.

mod cpu;
mod device;
mod gdb;
mod hotplug;
mod keys;
mod memory;
mod nodes;
mod qmp;
mod viommu;

use std::path::PathBuf;
use std::time::Duration;

use strait_vfio::host::HostBdf;

use crate::control::QmpAddress;
use crate::guests::GuestName;
use crate::status::StatusTarget;

pub use cpu::{CpuConfig, CpuConfigError};
pub use device::{DEVICE_KEYS, DeviceConfig, DeviceConfigError, RomConfig};
pub use gdb::{GdbConfig, ListenError};
pub use hotplug::{HotplugConfig, HotplugConfigError};
pub use keys::KeyError;
pub use memory::{
    HugePages, MIN_MEMORY, MemoryConfig, MemoryConfigError, MemorySize, MemorySizeError, PageSize,
};
pub use nodes::Nodes;
pub use qmp::{QmpError, listen};
pub use viommu::{ViommuConfig, ViommuConfigError};

/// Most vCPUs: one bit each in the tables that list them.
pub const MAX_CPUS: u32 = 64;
/// Most passed devices: a root port each, device numbers 1 to 31 of bus 0.
pub const MAX_DEVICES: usize = 31;

/// A virtual machine as its user described it, with devices found and numbers within their limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// A bzImage, or an ELF vmlinux with a PVH note.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// All of the guest's RAM.
    pub memory: MemoryConfig,
    /// What it finds beside its RAM and devices.
    pub machine: MachineKind,
    /// vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Which features of the host's CPU the guest sees.
    pub cpu: CpuConfig,
    /// Passed devices in the order of their root ports.
    pub devices: Vec<DeviceConfig>,
    /// The virtual IOMMU in front of them.
    pub viommu: Option<ViommuConfig>,
    /// The file for the virtual IOMMU's numbers at the end.
    pub stats: Option<PathBuf>,
    /// What follows when a device reports an uncorrectable error.
    pub on_device_error: OnDeviceError,
    /// Whether a reset by the guest ends the process.
    pub no_reboot: bool,
    /// The debugger that may look into the guest.
    pub gdb: Option<GdbConfig>,
    /// The guest's name, by which those who control it find it.
    pub name: Option<GuestName>,
    /// Where else they are listened to.
    pub qmp: Option<QmpAddress>,
    /// How long a signal that ends the machine lets the guest power off; none for an end at once.
    pub stop_timeout: Option<Duration>,
    /// Slots for devices that come while the guest runs.
    pub hotplug: Option<HotplugConfig>,
    /// Who is told where the run stands.
    pub status: Option<StatusTarget>,
}

/// Which machine the guest finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MachineKind {
    /// One in which kernels find what they find on a PC.
    #[default]
    Usual,
    /// One in which Linux, as it is today, starts with fewer exits: PCI is configured by ECAM alone, there is no clock,
    /// and the I/O APIC begins with the first pin that is wired.
    Lean,
}

/// What follows when the host reports an uncorrectable error of a passed device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDeviceError {
    /// The guest is ended, with code 1.
    Stop,
    /// The device is unplugged from the guest, which goes on.
    Unplug,
    /// It is only said.
    Ignore,
}

impl Config {
    /// The devices that are taken from the host for this guest.
    pub fn managed_devices(&self) -> Vec<HostBdf> {
        let managed = self.devices.iter().filter(|device| device.managed);
        managed.map(|device| device.host).collect()
    }
}

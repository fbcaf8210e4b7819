//! What a virtual machine is: the values of `strait run`, checked as far as they can be without the host.

mod cpu;
mod viommu;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use strait_vfio::host::{self, HostBdf, Root};

pub use cpu::{CpuConfig, CpuConfigError};
pub use viommu::{ViommuConfig, ViommuConfigError};

/// Bytes of the smallest guest a Debian kernel boots in.
pub const MIN_MEMORY: u64 = 64 << 20;
/// Most vCPUs: one bit each in the tables that list them.
pub const MAX_CPUS: u32 = 64;
/// Most passed devices: a root port each, device numbers 1 to 31 of bus 0.
pub const MAX_DEVICES: usize = 31;

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// A bzImage, or an ELF vmlinux with a PVH note.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// RAM.
    pub memory: MemorySize,
    /// vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// What they let the guest see of the host's CPU.
    pub cpu: CpuConfig,
    /// Passed devices in the order of their root ports.
    pub devices: Vec<DeviceConfig>,
    /// The virtual IOMMU in front of them.
    pub viommu: Option<ViommuConfig>,
    /// Where the numbers of the virtual IOMMU go at the end.
    pub stats: Option<PathBuf>,
    /// What follows when a device reports an error.
    pub on_device_error: OnDeviceError,
    /// Whether a reset by the guest ends the process.
    pub no_reboot: bool,
}

/// RAM in bytes, a multiple of 4 KiB, at least [`MIN_MEMORY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0 >> 20)
    }
}

/// A size that is no size, or not one of RAM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    /// Not a number with a unit.
    #[error("{0:?} is not a size; write a number and M or G, as in 512M or 4G")]
    Syntax(String),
    /// Too small to boot anything.
    #[error("{0:?} is too little memory; the least is {min}M", min = MIN_MEMORY >> 20)]
    TooSmall(String),
    /// More than any address bus.
    #[error("{0:?} is more memory than a CPU can address")]
    TooBig(String),
    /// Not whole pages.
    #[error("{0:?} is not a whole number of 4 KiB pages")]
    Pages(String),
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    /// A number with K, M, G or T; MiB without, as QEMU has it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || MemorySizeError::Syntax(text.to_owned());
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "K" | "KB" | "KIB" => 10,
            "" | "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(syntax()),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number { digits } else { return Err(syntax()) };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
        match bytes.filter(|bytes| *bytes <= 1 << 46) {
            None => Err(MemorySizeError::TooBig(text.to_owned())),
            Some(bytes) if bytes < MIN_MEMORY => Err(MemorySizeError::TooSmall(text.to_owned())),
            Some(bytes) if bytes % 4096 != 0 => Err(MemorySizeError::Pages(text.to_owned())),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
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

/// The value of `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The device on the host.
    pub host: HostBdf,
    /// A name of the user's for it.
    pub id: Option<String>,
    /// Whether it is bound to vfio-pci for this guest alone.
    pub managed: bool,
    /// What the guest finds as its ROM.
    pub rom: RomConfig,
    /// Whether the guest finds no MSI-X.
    pub hides_msix: bool,
}

/// The ROM of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RomConfig {
    /// Its own.
    #[default]
    Own,
    /// None.
    Hidden,
    /// A file's content.
    File(PathBuf),
}

impl Config {
    /// The devices that are taken from the host for this guest.
    pub fn managed_devices(&self) -> Vec<HostBdf> {
        let managed = self.devices.iter().filter(|device| device.managed);
        managed.map(|device| device.host).collect()
    }
}

/// The keys of `--device`, with what they mean.
pub const DEVICE_KEYS: [(&str, &str); 7] = [
    (
        "host",
        "the device: 0000:01:00.0, 01:00.0, pci_0000_01_00_0, a path in /sys, 8086:10c9, enp3s0 or nvme0n1",
    ),
    ("sysfsdev", "the same, by its path in /sys, as in QEMU"),
    ("id", "a name of your own for the device, for messages"),
    (
        "managed",
        "on: bind it to vfio-pci before the guest starts, give it back when it ends",
    ),
    ("rombar", "off: the guest does not see the device's ROM"),
    (
        "romfile",
        "a file that the guest sees in place of the device's ROM",
    ),
    (
        "msix",
        "off: the guest does not see MSI-X, and its driver uses MSI or the wire",
    ),
];

/// A device value that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceConfigError {
    /// A key nobody knows.
    #[error("{0:?} is not a key of --device; the keys are {keys}", keys = known_keys())]
    UnknownKey(String),
    /// A key twice.
    #[error("the key {0:?} is given twice")]
    Repeated(&'static str),
    /// Another driver than vfio-pci.
    #[error("{0:?} is not a kind of device; the one kind is vfio-pci, as in vfio-pci,host=01:00.0")]
    Kind(String),
    /// Neither on nor off.
    #[error("{0}={1:?} is neither on nor off")]
    Switch(&'static str, String),
    /// A ROM that shall be hidden and replaced.
    #[error("rombar=off hides the ROM that romfile= would replace; give one of them")]
    Rom,
    /// No device named.
    #[error("no device is named; write --device 01:00.0 or --device vfio-pci,host=01:00.0")]
    NoHost,
    /// A name of nothing.
    #[error(transparent)]
    Name(#[from] host::LookupError),
}

impl DeviceConfig {
    /// Reads the value of `--device`, in which a device may be named as `root`'s host knows it.
    ///
    /// # Errors
    /// The first part that cannot be understood.
    pub fn read(text: &str, root: &Root) -> Result<Self, DeviceConfigError> {
        let (mut kind, mut host) = (None, None);
        let (mut id, mut managed) = (None, None);
        let (mut rom_bar, mut rom_file, mut msix) = (None, None, None);
        for (position, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                None if position == 0 && part == "vfio-pci" => {}
                None if position == 0 => kind = Some(part),
                Some(("host" | "sysfsdev" | "path", value)) => set(&mut host, "host", value)?,
                Some(("id", value)) => set(&mut id, "id", value)?,
                Some(("managed", value)) => set(&mut managed, "managed", value)?,
                Some(("rombar", value)) => set(&mut rom_bar, "rombar", value)?,
                Some(("romfile", value)) => set(&mut rom_file, "romfile", value)?,
                Some(("msix", value)) => set(&mut msix, "msix", value)?,
                Some((key, _)) => return Err(DeviceConfigError::UnknownKey(key.to_owned())),
                None => return Err(DeviceConfigError::UnknownKey(part.to_owned())),
            }
        }
        // A first word is the device, unless another one follows.
        let host = match (kind, host) {
            (Some(kind), Some(_)) if !looks_like_an_address(kind) => {
                return Err(DeviceConfigError::Kind(kind.to_owned()));
            }
            (Some(_), Some(_)) => return Err(DeviceConfigError::Repeated("host")),
            (Some(device), None) | (None, Some(device)) => device,
            (None, None) => return Err(DeviceConfigError::NoHost),
        };
        Ok(Self {
            host: host::find(root, host)?,
            id: id.map(str::to_owned),
            managed: is_on("managed", managed)?.unwrap_or(false),
            rom: rom(is_on("rombar", rom_bar)?, rom_file)?,
            hides_msix: !is_on("msix", msix)?.unwrap_or(true),
        })
    }
}

fn is_on(key: &'static str, value: Option<&str>) -> Result<Option<bool>, DeviceConfigError> {
    match value {
        None => Ok(None),
        Some("on" | "yes" | "1") => Ok(Some(true)),
        Some("off" | "no" | "0") => Ok(Some(false)),
        Some(other) => Err(DeviceConfigError::Switch(key, other.to_owned())),
    }
}

fn rom(bar: Option<bool>, file: Option<&str>) -> Result<RomConfig, DeviceConfigError> {
    match (bar, file) {
        (Some(false), Some(_)) => Err(DeviceConfigError::Rom),
        (Some(false), None) => Ok(RomConfig::Hidden),
        (_, Some(path)) => Ok(RomConfig::File(path.into())),
        (_, None) => Ok(RomConfig::Own),
    }
}

/// A word with a colon, a slash or a point means a device, not a kind of device.
fn looks_like_an_address(word: &str) -> bool {
    word.contains([':', '/', '.']) || word.starts_with("pci_")
}

fn set<'a>(to: &mut Option<&'a str>, key: &'static str, value: &'a str) -> Result<(), DeviceConfigError> {
    match to.replace(value) {
        None => Ok(()),
        Some(_) => Err(DeviceConfigError::Repeated(key)),
    }
}

fn known_keys() -> String {
    DEVICE_KEYS.map(|(key, _)| key).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a host without devices.
    fn read(text: &str) -> Result<DeviceConfig, DeviceConfigError> {
        DeviceConfig::read(text, &Root::at("/nonexistent"))
    }

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        let bytes = |text: &str| text.parse().map(MemorySize::bytes);
        assert_eq!(bytes("512"), Ok(512 << 20));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("4g"), Ok(4 << 30));
        assert_eq!(bytes("65536K"), Ok(64 << 20));
    }

    #[test]
    fn sizes_that_cannot_be_say_why() {
        let error = |text: &str| {
            text.parse::<MemorySize>()
                .expect_err("no size of RAM")
                .to_string()
        };
        assert_eq!(error("0"), "\"0\" is too little memory; the least is 64M");
        assert_eq!(error("63M"), "\"63M\" is too little memory; the least is 64M");
        assert!(error("-4G").contains("not a size"));
        assert!(error("four").contains("not a size"));
        assert!(error("").contains("not a size"));
        assert!(error("99999999T").contains("more memory"));
        assert!(error("18446744073709551616").contains("more memory"));
        assert!(error("65537K").contains("4 KiB"));
    }

    #[test]
    fn a_rom_is_the_devices_own_a_file_or_none() {
        let rom = |keys: &str| {
            let device = read(&format!("host=01:00.0{keys}"));
            device.map(|device| device.rom)
        };
        assert_eq!(rom(""), Ok(RomConfig::Own));
        assert_eq!(rom(",rombar=on"), Ok(RomConfig::Own));
        assert_eq!(rom(",rombar=0"), Ok(RomConfig::Hidden));
        let file = RomConfig::File("/lib/gpu.rom".into());
        assert_eq!(rom(",romfile=/lib/gpu.rom"), Ok(file));
        assert_eq!(rom(",rombar=off,romfile=a"), Err(DeviceConfigError::Rom));
        let error = rom(",rombar=2").expect_err("neither on nor off");
        assert_eq!(error.to_string(), "rombar=\"2\" is neither on nor off");
    }

    #[test]
    fn a_device_has_many_spellings() {
        let spellings = [
            "0000:01:00.0",
            "01:00.0",
            "pci_0000_01_00_0",
            "/sys/bus/pci/devices/0000:01:00.0",
            "vfio-pci,host=01:00.0",
            "vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:01:00.0",
            "host=01:00.0",
        ];
        for text in spellings {
            let device = read(text).expect(text);
            assert_eq!(device.host.to_string(), "0000:01:00.0", "{text}");
        }
        let named = read("vfio-pci,host=01:00.0,id=net0").expect("QEMU's habit");
        assert_eq!(named.id.as_deref(), Some("net0"));
        assert!(!named.managed);
        let managed = read("01:00.0,managed=on").expect("libvirt's habit");
        assert!(managed.managed);
    }

    #[test]
    fn what_is_no_address_is_looked_up() {
        let error = read("eth7").expect_err("no such interface").to_string();
        assert!(error.starts_with("`eth7` is no PCI device, network interface or disk"));
        let error = read("host=8086:10c9").expect_err("no such ids").to_string();
        assert!(error.contains("8086:10c9"));
    }

    #[test]
    fn an_unknown_key_lists_the_known_ones() {
        let error = read("01:00.0,adress=3").expect_err("no such key").to_string();
        assert_eq!(
            error,
            "\"adress\" is not a key of --device; the keys are host, sysfsdev, id, managed, rombar, romfile, msix"
        );
        assert!(read("e1000,host=01:00.0").is_err());
        assert!(read("vfio-pci").is_err());
        assert!(read("01:00.0,managed=maybe").is_err());
        assert!(read("01:00.0,host=02:00.0").is_err());
    }
}

//! The value of `--device`.

use std::fmt;
use std::path::PathBuf;

use strait_vfio::host::{self, HostBdf, Root};

use super::keys::{KeyError, set, set_switch};

/// The value of `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The device on the host.
    pub host: HostBdf,
    /// A name of the user's for it, which messages put before its address.
    pub id: Option<String>,
    /// True if it is bound to vfio-pci for this guest and given back at its end.
    pub managed: bool,
    /// The ROM that the guest finds behind its ROM register.
    pub rom: RomConfig,
    /// True if the MSI-X capability is left out of what the guest reads, so that its driver uses MSI or the wire.
    pub hides_msix: bool,
}

/// The ROM of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RomConfig {
    /// The one that the device has.
    #[default]
    Own,
    /// The guest finds none: the register of its address reads as 0.
    Hidden,
    /// The bytes of this file.
    File(PathBuf),
}

/// The keys of `--device`, with what they mean.
pub const DEVICE_KEYS: [(&str, &str); 7] = [
    (
        "host",
        "the device: 0000:01:00.0, 01:00.0, pci_0000_01_00_0, a path in /sys, 8086:10c9, enp3s0 or nvme0n1",
    ),
    ("sysfsdev", "the same, by its path in /sys, as in QEMU"),
    (
        "id",
        "a name of your own, which messages about the device begin with",
    ),
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
    /// A key that is none of [`DEVICE_KEYS`].
    #[error("{0:?} is not a key of --device; the keys are {keys}", keys = known_keys())]
    UnknownKey(String),
    /// A key twice, or a value that is neither on nor off.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another driver than vfio-pci.
    #[error("{0:?} is not a kind of device; the one kind is vfio-pci, as in vfio-pci,host=01:00.0")]
    Kind(String),
    /// A ROM that is to be hidden and replaced at once.
    #[error("rombar=off hides the ROM that romfile= would replace; give one of them")]
    Rom,
    /// Keys of a device, and no device among them.
    #[error("no device is named; write --device 01:00.0 or --device vfio-pci,host=01:00.0")]
    NoHost,
    /// A name that leads to no device of the host, or to several.
    #[error(transparent)]
    Name(#[from] host::LookupError),
}

/// The device as messages name it: its address, behind the user's own name for it.
impl fmt::Display for DeviceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id} ({})", self.host),
            None => self.host.fmt(f),
        }
    }
}

impl DeviceConfig {
    /// What clients of the control socket call it: the user's own name, or its address.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.host.to_string())
    }

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
                Some(("managed", value)) => set_switch(&mut managed, "managed", value)?,
                Some(("rombar", value)) => set_switch(&mut rom_bar, "rombar", value)?,
                Some(("romfile", value)) => set(&mut rom_file, "romfile", value)?,
                Some(("msix", value)) => set_switch(&mut msix, "msix", value)?,
                Some((key, _)) => return Err(DeviceConfigError::UnknownKey(key.to_owned())),
                None => return Err(DeviceConfigError::UnknownKey(part.to_owned())),
            }
        }
        // A first word is the device, unless another one follows.
        let host = match (kind, host) {
            (Some(kind), Some(_)) if !looks_like_an_address(kind) => {
                return Err(DeviceConfigError::Kind(kind.to_owned()));
            }
            (Some(_), Some(_)) => return Err(KeyError::Repeated("host").into()),
            (Some(device), None) | (None, Some(device)) => device,
            (None, None) => return Err(DeviceConfigError::NoHost),
        };
        Ok(Self {
            host: host::find(root, host)?,
            id: id.map(str::to_owned),
            managed: managed.unwrap_or(false),
            rom: rom(rom_bar, rom_file)?,
            hides_msix: !msix.unwrap_or(true),
        })
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
        assert_eq!(named.to_string(), "net0 (0000:01:00.0)", "as messages name it");
        assert!(!named.managed);
        assert_eq!(
            read("01:00.0").expect("lspci's habit").to_string(),
            "0000:01:00.0"
        );
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

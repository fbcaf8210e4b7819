//! Finding a device by what its user calls it.

use super::sysfs::Root;
use super::usage::Names;
use super::{HostBdf, PciDevice};

/// A name that leads to no device, or to several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Neither an address nor anything the host has.
    #[error(
        "`{0}` is no PCI device, network interface or disk of this host; devices are written 0000:01:00.0, \
         01:00.0, pci_0000_01_00_0, 8086:10c9 (vendor:device), enp3s0 or nvme0n1, see strait host list"
    )]
    Unknown(String),
    /// The numbers fit no device.
    #[error("no device of this host is a {0}; strait host list shows those there are")]
    NoSuchIds(String),
    /// The numbers fit several.
    #[error("{ids} stands for several devices: {candidates}; name one of them")]
    Ambiguous {
        /// Vendor and device id.
        ids: String,
        /// The devices that it may stand for.
        candidates: String,
    },
}

/// The function that `text` names: by any form of address, as `vendor:device` if only one has these, or by
/// its network interface or disk. An address need not be that of a device that is there.
///
/// # Errors
/// When it names none, or several.
pub fn find(root: &Root, text: &str) -> Result<HostBdf, LookupError> {
    if let Ok(bdf) = text.parse() {
        return Ok(bdf);
    }
    if let Some((vendor, device)) = ids(text) {
        return by_ids(root, text, vendor, device);
    }
    let name = text.strip_prefix("/dev/").unwrap_or(text);
    Names::read(root)
        .function_with(name)
        .ok_or_else(|| LookupError::Unknown(text.to_owned()))
}

/// `8086:10c9`.
fn ids(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    let number = |text: &str| match text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => u16::from_str_radix(text, 16).ok(),
        false => None,
    };
    Some((number(vendor)?, number(device)?))
}

fn by_ids(root: &Root, text: &str, vendor: u16, device: u16) -> Result<HostBdf, LookupError> {
    let names = root.names("sys/bus/pci/devices");
    let devices = names
        .iter()
        .filter_map(|name| root.device(name.parse().ok()?).ok()?);
    let fit: Vec<PciDevice> = devices
        .filter(|one| (one.vendor, one.device) == (vendor, device))
        .collect();
    match &fit[..] {
        [] => Err(LookupError::NoSuchIds(text.to_owned())),
        [one] => Ok(one.bdf),
        several => {
            let candidates: Vec<String> = several.iter().map(|one| one.bdf.to_string()).collect();
            Err(LookupError::Ambiguous {
                ids: text.to_owned(),
                candidates: candidates.join(", "),
            })
        }
    }
}

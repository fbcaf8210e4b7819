//! PCI functions as sysfs shows them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::HostBdf;
use super::drivers::is_vfio_driver;

/// Base class of bridges (PCI Code and ID Assignment §1.7), which NVSwitches and the like have too.
const CLASS_BRIDGE: u32 = 0x06;
/// The function that stands for the root complex itself; its header is of type 0.
const CLASS_HOST_BRIDGE: u32 = 0x06_00;
/// PCI-to-PCI, CardBus and semi-transparent PCI-to-PCI bridges.
const CLASSES_WITH_A_BUS: [u32; 3] = [0x06_04, 0x06_07, 0x06_09];
/// Header Type register and its bit for several functions (PCI 3.0 §6.2.1).
const HEADER_TYPE: usize = 0x0e;
const MULTI_FUNCTION: u8 = 0x80;

/// Most bytes taken of one file. The largest read here are modules.alias and pci.ids, 1.5 MB each.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Where the host's files are: `/`, or a folder that a test has filled.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The files of this very host.
    pub fn real() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A host made of the files below `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The host's file at `path`, which is relative to the root.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// What stands in the file at `path`, without the line's end; `None` if it cannot be read.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        read_text(&self.path(path)).ok()
    }

    /// The names in the folder at `path` in order, none if it cannot be read.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        names_in(&self.path(path))
    }

    /// The folder of function `bdf` on the bus.
    pub(crate) fn function(&self, bdf: HostBdf) -> PathBuf {
        self.path("sys/bus/pci/devices").join(bdf.to_string())
    }

    /// The function that keeps the PCI domain of `bdf`, as Intel VMD does.
    pub(crate) fn keeper(&self, bdf: HostBdf) -> Option<HostBdf> {
        let path = fs::canonicalize(self.function(bdf)).ok()?;
        owners(&path).get(1).copied()
    }

    /// Every function that is no bridge and has an IOMMU group; what cannot be read is left out.
    pub fn endpoints(&self) -> Vec<HostBdf> {
        let folder = fs::read_dir(self.path("sys/bus/pci/devices"));
        let names = folder.into_iter().flatten().flatten();
        let functions = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let devices = functions.filter_map(|bdf| self.device(bdf).ok().flatten());
        let passable = devices.filter(|device| !device.is_bridge && device.group.is_some());
        passable.map(|device| device.bdf).collect()
    }

    /// The function `bdf`, `None` if the host has none.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn device(&self, bdf: HostBdf) -> io::Result<Option<PciDevice>> {
        let folder = self.function(bdf);
        if !folder.exists() {
            return Ok(None);
        }
        let class = hex_file(&folder.join("class"))?;
        let driver = link_name(&folder.join("driver"))?;
        Ok(Some(PciDevice {
            bdf,
            class,
            vendor: hex_file(&folder.join("vendor"))? as u16,
            device: hex_file(&folder.join("device"))? as u16,
            is_bridge: class >> 8 == CLASS_HOST_BRIDGE || has_bus_behind(&folder, class),
            is_given: driver.as_deref().is_some_and(|driver| gives(&folder, driver)),
            driver,
            group: link_name(&folder.join("iommu_group"))?.and_then(|name| name.parse().ok()),
            is_virtual: folder.join("physfn").exists(),
        }))
    }
}

/// A PCI function of the host, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Its address on the host.
    pub bdf: HostBdf,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// Vendor id in configuration space.
    pub vendor: u16,
    /// Device id in configuration space.
    pub device: u16,
    /// The driver bound to it.
    pub driver: Option<String>,
    /// It is a bridge to another bus or the host's own, and cannot be passed.
    pub is_bridge: bool,
    /// Its driver offers it to guests through VFIO.
    pub is_given: bool,
    /// Number of its IOMMU group.
    pub group: Option<u32>,
    /// It is a virtual function of another.
    pub is_virtual: bool,
}

impl PciDevice {
    /// The driver's name, for people.
    pub fn driver_name(&self) -> &str {
        self.driver.as_deref().unwrap_or("no driver")
    }
}

/// Whether the function at `folder` has a header of type 1 or 2, as vfio-pci asks (`vfio_pci_core_init_dev`): only
/// then sysfs has `secondary_bus_number` (`pci_bridge_attrs_are_visible`, since Linux 4.18). Configuration
/// space is read only where the class leaves a doubt, since reading it wakes a sleeping device.
fn has_bus_behind(folder: &Path, class: u32) -> bool {
    if folder.join("secondary_bus_number").exists() {
        return true;
    }
    if class >> 16 != CLASS_BRIDGE {
        return false;
    }
    match header_type(folder) {
        Some(header) => header != 0,
        None => CLASSES_WITH_A_BUS.contains(&(class >> 8)),
    }
}

/// From the first 64 bytes of configuration space, which every user may read.
fn header_type(folder: &Path) -> Option<u8> {
    let mut start = [0; HEADER_TYPE + 1];
    File::open(folder.join("config"))
        .and_then(|mut file| file.read_exact(&mut start))
        .ok()?;
    Some(start[HEADER_TYPE] & !MULTI_FUNCTION)
}

/// Whether `driver` has made a VFIO device of the function, as the drivers of some virtual GPUs and NICs do themselves
/// (`vfio-dev/`, since Linux 6.1). Kernels before that leave only its name.
fn gives(folder: &Path, driver: &str) -> bool {
    folder.join("vfio-dev").exists() || is_vfio_driver(driver)
}

/// The names in `folder` in order, none if it cannot be read.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A file's text without white space at its ends, and without what is beyond any sensible size.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The functions on the way from the root bus to the device at `path`, the nearest last.
pub(crate) fn functions_on(path: &Path) -> Vec<HostBdf> {
    let Ok(path) = fs::canonicalize(path) else {
        return Vec::new();
    };
    names_on(&path).filter_map(function_named).collect()
}

/// The functions that go away with the device at `path`, which has no links in it, the nearest first: the one
/// it is a part of, and those that keep a PCI domain of their own with it in, as Intel VMD does. Bridges
/// stay with the host.
pub(crate) fn owners(path: &Path) -> Vec<HostBdf> {
    let names: Vec<&str> = names_on(path).collect();
    let is_bridge = |next: Option<&&str>| next.is_some_and(|next| function_named(next).is_some());
    let owners = names.iter().enumerate().rev().filter_map(|(n, name)| {
        let bdf = function_named(name)?;
        (!is_bridge(names.get(n + 1))).then_some(bdf)
    });
    owners.collect()
}

/// The function whose folder is called `name`.
pub(crate) fn function_named(name: &str) -> Option<HostBdf> {
    let bdf: HostBdf = name.parse().ok()?;
    (bdf.to_string() == name).then_some(bdf)
}

fn names_on(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|part| part.as_os_str().to_str())
}

fn hex_file(path: &Path) -> io::Result<u32> {
    let text = read_text(path)?;
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// The last part of a link's target, `None` if there is no link.
pub(crate) fn link_name(path: &Path) -> io::Result<Option<String>> {
    match fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

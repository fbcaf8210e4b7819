//! Every PCI function of the host with what one wants to know before passing it.

use std::io;
use std::path::{Path, PathBuf};

use super::HostBdf;
use super::access::Host;
use super::kernel::{Kernel, is_pending};
use super::modules::Modules;
use super::sysfs::{PciDevice, Root, functions_on, link_name, names_in, read_text};
use super::usage::{Usage, Use};
use super::virtual_links::count_virtual_functions;

/// Single Root I/O Virtualization of a physical function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// Virtual functions that are there now.
    pub active: u32,
    /// Most that it can have.
    pub max: u32,
}

/// A PCI function and what surrounds it.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its identity, driver and group.
    pub pci: PciDevice,
    /// The bridge it is behind.
    pub parent: Option<HostBdf>,
    /// For a bridge, the bus behind it, as in `0000:01`.
    pub bus_behind: Option<String>,
    /// Modules that would drive it.
    pub drivers: Vec<String>,
    /// `driver_override`, if one is set.
    pub override_driver: Option<String>,
    /// How the kernel can reset it, the preferred way first.
    pub reset_methods: Vec<String>,
    /// The memory it is near to.
    pub numa_node: Option<u32>,
    /// Virtual functions, if it is a physical function with SR-IOV.
    pub sriov: Option<Sriov>,
    /// The physical function, if it is a virtual one.
    pub physical_function: Option<HostBdf>,
    /// Names of its network interfaces.
    pub interfaces: Vec<String>,
    /// Names of its disks.
    pub disks: Vec<String>,
    /// What the host does with it.
    pub uses: Vec<Use>,
}

/// All functions, and those that sysfs names but does not describe.
#[derive(Debug, Default)]
pub struct Inventory {
    /// In order of their names.
    pub functions: Vec<Function>,
    /// What could not be read, and why.
    pub unreadable: Vec<(String, io::Error)>,
}

/// All functions by what they are, which disturbs no device; and those that sysfs names but does not describe.
#[derive(Debug, Default)]
pub struct Devices {
    /// In order of their names.
    pub devices: Vec<PciDevice>,
    /// What could not be read, and why.
    pub unreadable: Vec<(String, io::Error)>,
}

impl Inventory {
    /// Reads the host. A function that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// When there is no PCI bus in sysfs.
    pub fn read(host: Host<'_>) -> io::Result<Self> {
        let Devices { devices, unreadable } = Devices::read(host.root)?;
        let (modules, usage) = (Modules::read(host.root), Usage::read(host.root));
        let folders: Vec<PathBuf> = devices.iter().map(|pci| host.root.function(pci.bdf)).collect();
        let overrides = override_drivers(host.kernel, &folders);
        let functions = devices
            .into_iter()
            .zip(overrides)
            .map(|(pci, override_driver)| Function::read(host, pci, override_driver, &modules, &usage))
            .collect();
        Ok(Self {
            functions,
            unreadable,
        })
    }
}

impl Devices {
    /// Reads what the bus names. A function that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// When there is no PCI bus in sysfs.
    pub fn read(root: &Root) -> io::Result<Self> {
        let folder = root.path("sys/bus/pci/devices");
        folder.read_dir().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot list /sys/bus/pci/devices: {error}"))
        })?;
        let mut found = Self::default();
        for name in names_in(&folder) {
            match name.parse().map(|bdf| root.device(bdf)) {
                Ok(Ok(Some(pci))) => found.devices.push(pci),
                Ok(Ok(None)) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(Err(error)) => found.unreadable.push((name, error)),
                Err(error) => found.unreadable.push((name, io::Error::other(error))),
            }
        }
        found.devices.sort_by_key(|pci| pci.bdf);
        Ok(found)
    }
}

impl Function {
    fn read(
        host: Host<'_>,
        pci: PciDevice,
        override_driver: io::Result<Option<String>>,
        modules: &Modules,
        usage: &Usage,
    ) -> Self {
        let bdf = pci.bdf;
        let mut uses = usage.of(host.root, host.kernel, bdf);
        if override_driver.is_err() {
            uses.push(Use::in_transit());
        }
        let folder = host.root.function(bdf);
        let file = |name: &str| read_text(&folder.join(name)).ok();
        let on_the_way = functions_on(&folder);
        let number = |name: &str| file(name)?.parse::<u32>().ok();
        Self {
            parent: on_the_way.iter().rev().nth(1).copied(),
            bus_behind: names_in(&folder.join("pci_bus")).into_iter().next(),
            drivers: modules.drivers_for(host.root, &pci),
            override_driver: override_driver.unwrap_or_default(),
            reset_methods: reset_methods(&folder),
            // -1 where the host has only one.
            numa_node: number("numa_node"),
            sriov: number("sriov_totalvfs").filter(|max| *max > 0).map(|max| Sriov {
                active: count_virtual_functions(host.root, bdf),
                max,
            }),
            physical_function: physical_function(&folder),
            interfaces: usage.interfaces(bdf),
            disks: usage.disks(bdf),
            uses,
            pci,
        }
    }

    /// True if taking it away from the host would break something.
    pub fn is_busy(&self) -> bool {
        self.uses.iter().any(Use::is_blocking)
    }
}

/// The physical function of the virtual one at `folder`.
pub(crate) fn physical_function(folder: &Path) -> Option<HostBdf> {
    link_name(&folder.join("physfn")).ok()??.parse().ok()
}

/// The override of the function at `folder`.
///
/// # Errors
/// When the kernel works on the function and does not tell (`driver_override_show` takes its lock).
pub(crate) fn override_driver(kernel: &dyn Kernel, folder: &Path) -> io::Result<Option<String>> {
    as_override(kernel.read(&folder.join("driver_override")))
}

/// Those of the functions at `folders`, in this order.
pub(crate) fn override_drivers(kernel: &dyn Kernel, folders: &[PathBuf]) -> Vec<io::Result<Option<String>>> {
    let files: Vec<PathBuf> = folders
        .iter()
        .map(|folder| folder.join("driver_override"))
        .collect();
    kernel.read_each(&files).into_iter().map(as_override).collect()
}

/// The kernel writes `(null)` for none, and has no file where none can be set.
fn as_override(text: io::Result<String>) -> io::Result<Option<String>> {
    match text {
        Ok(text) => Ok((!text.is_empty() && text != "(null)").then_some(text)),
        Err(error) if is_pending(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Since Linux 5.15 the kernel names the ways; before, it only says that there is one.
pub(crate) fn reset_methods(folder: &Path) -> Vec<String> {
    match read_text(&folder.join("reset_method")) {
        Ok(methods) => methods.split_whitespace().map(str::to_owned).collect(),
        Err(_) if folder.join("reset").exists() => vec!["unnamed".to_owned()],
        Err(_) => Vec::new(),
    }
}

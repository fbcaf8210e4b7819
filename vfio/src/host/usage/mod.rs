//! What the host does with a device right now: what would break if the device went away.

mod console;
mod network;
mod process;
mod storage;

use std::fmt;

use super::HostBdf;
use super::sysfs::Root;

pub(crate) use console::boot_screen;

use console::Consoles;
use network::Network;
use process::OpenFiles;
use storage::Storage;

/// One way in which the host uses a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// A network interface is up.
    InterfaceUp {
        /// Its name.
        interface: String,
    },
    /// An address of the host is reached through it.
    Address {
        /// The interface.
        interface: String,
        /// The bond, bridge or VLAN above it that has the address, or the interface itself.
        holder: String,
    },
    /// The default route goes through it.
    DefaultRoute {
        /// The interface.
        interface: String,
        /// The bond, bridge or VLAN above it that has the route, or the interface itself.
        holder: String,
    },
    /// A file system on it is mounted.
    Mounted {
        /// The disk.
        disk: String,
        /// Where.
        at: String,
    },
    /// The host swaps to it.
    Swap {
        /// The disk.
        disk: String,
    },
    /// The kernel's console is on it.
    Console {
        /// Which console.
        console: String,
        /// Whether there is no other one.
        last: bool,
    },
    /// It has virtual functions, which vanish with its driver.
    VirtualFunctions {
        /// How many.
        count: u32,
    },
    /// A process has its device file open.
    Process {
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
        /// The file.
        file: String,
    },
}

impl Use {
    /// Whether the device must not be taken away without being told to.
    pub fn is_blocking(&self) -> bool {
        !matches!(self, Self::InterfaceUp { .. } | Self::Console { last: false, .. })
    }

    /// How the host lets go of it.
    pub fn remedy(&self, bdf: HostBdf) -> String {
        match self {
            Self::InterfaceUp { interface } => format!("ip link set {interface} down"),
            Self::Address { holder, .. } => format!("ip address flush dev {holder}"),
            Self::DefaultRoute { holder, .. } => {
                format!("move the default route to another interface, then ip address flush dev {holder}")
            }
            Self::Mounted { at, .. } => format!("umount {at}"),
            Self::Swap { disk } => format!("swapoff every partition of {disk}"),
            Self::Console { .. } => "add another console to the kernel's command line, as in \
                                     console=tty0 console=ttyS0, and reboot"
                .to_owned(),
            Self::VirtualFunctions { .. } => format!("strait host vf {bdf} 0"),
            Self::Process { pid, name, .. } => format!("end process {pid} ({name})"),
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let through = |interface: &str, holder: &str| match interface == holder {
            true => interface.to_owned(),
            false => format!("{interface} (through {holder})"),
        };
        match self {
            Self::InterfaceUp { interface } => write!(f, "{interface} is up"),
            Self::Address { interface, holder } => write!(f, "{} has an address", through(interface, holder)),
            Self::DefaultRoute { interface, holder } => {
                write!(f, "{} carries the default route", through(interface, holder))
            }
            Self::Mounted { disk, at } => write!(f, "{disk} is mounted at {at}"),
            Self::Swap { disk } => write!(f, "{disk} is swap space"),
            Self::Console { console, last: true } => write!(f, "it is the last console ({console})"),
            Self::Console { console, last: false } => write!(f, "{console} is a console on it"),
            Self::VirtualFunctions { count: 1 } => write!(f, "it has an active virtual function"),
            Self::VirtualFunctions { count } => write!(f, "it has {count} active virtual functions"),
            Self::Process { pid, name, file } => write!(f, "process {pid} ({name}) has {file} open"),
        }
    }
}

/// Interfaces, disks, consoles and open files of the whole host, read once.
#[derive(Clone, Debug)]
pub struct Usage {
    network: Network,
    storage: Storage,
    consoles: Consoles,
    files: OpenFiles,
}

impl Usage {
    /// Reads it all. What cannot be read counts as not used.
    pub fn read(root: &Root) -> Self {
        Self {
            network: Network::read(root),
            storage: Storage::read(root),
            consoles: Consoles::read(root),
            files: OpenFiles::read(root),
        }
    }

    /// Network interfaces of function `bdf`.
    pub fn interfaces(&self, bdf: HostBdf) -> Vec<String> {
        self.network.interfaces(bdf)
    }

    /// Disks of function `bdf`.
    pub fn disks(&self, bdf: HostBdf) -> Vec<String> {
        self.storage.disks(bdf)
    }

    /// The function with network interface or disk `name`.
    pub fn function_with(&self, name: &str) -> Option<HostBdf> {
        self.network
            .function_of(name)
            .or_else(|| self.storage.function_of(name))
    }

    /// Every use of function `bdf`, the gravest kinds first.
    pub fn of(&self, root: &Root, bdf: HostBdf) -> Vec<Use> {
        let mut uses = self.storage.uses(bdf);
        uses.extend(self.network.uses(bdf));
        uses.extend(self.consoles.uses(bdf));
        let count = root.text(root.function(bdf).join("sriov_numvfs"));
        match count.and_then(|count| count.parse().ok()) {
            Some(0) | None => {}
            Some(count) => uses.push(Use::VirtualFunctions { count }),
        }
        uses.extend(self.files.uses(root, bdf));
        uses
    }
}

//! The ways in which the host uses a device, what each is called, and how it ends.

use std::fmt;

use super::whole::Whole;
use crate::host::HostBdf;
use crate::host::process::Process;

/// How many places are named.
const SHOWN: usize = 4;

/// One way in which the host uses a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// A network interface is up.
    InterfaceUp {
        /// Name of the network interface.
        interface: String,
    },
    /// An address of the host is reached through it.
    Address {
        /// Name of the network interface.
        interface: String,
        /// The bond, bridge or VLAN above it that has the address, or the interface itself.
        holder: String,
    },
    /// The default route goes through it.
    DefaultRoute {
        /// Name of the network interface.
        interface: String,
        /// The bond, bridge or VLAN above it that has the route, or the interface itself.
        holder: String,
    },
    /// Another interface stands on it.
    Carries {
        /// Name of the network interface.
        interface: String,
        /// The bond, bridge, VLAN, macvlan or switch.
        upper: String,
        /// Whether it is a port of `upper`, which is there without it.
        is_port: bool,
    },
    /// A process receives everything that passes it.
    Watched {
        /// Name of the network interface.
        interface: String,
        /// The process, where it can be seen.
        process: Option<Process>,
    },
    /// Its interface is in another network namespace, where its addresses are not seen.
    InterfaceElsewhere,
    /// File systems on it are mounted.
    Mounted {
        /// Name of the disk below /dev.
        disk: String,
        /// Where it is mounted.
        at: Vec<String>,
    },
    /// The host swaps to it.
    Swap {
        /// Name of the disk below /dev.
        disk: String,
        /// The partition or volume, as /proc/swaps names it.
        file: String,
    },
    /// It holds what the host would wake up from.
    Resume {
        /// Name of the disk below /dev.
        disk: String,
    },
    /// Something that is active is made of it.
    Part {
        /// Name of the disk below /dev.
        disk: String,
        /// What it is a part of.
        whole: Whole,
        /// How many more there are.
        others: usize,
    },
    /// The kernel keeps it from others, and nothing tells for whom.
    Claimed {
        /// Name of the disk below /dev.
        disk: String,
    },
    /// The kernel's console is on it.
    Console {
        /// Name of the console, as in /sys/class/tty.
        console: String,
        /// Whether there is no other one.
        last: bool,
    },
    /// It has virtual functions, which vanish with its driver.
    VirtualFunctions {
        /// How many there are.
        count: u32,
    },
    /// A process has a device file of it open.
    Process {
        /// The process that has it open.
        process: Process,
        /// Path of the open file.
        file: String,
        /// Whether its driver would wait for the process, for ever and with no way back.
        hangs: bool,
    },
    /// More processes than are worth a line each.
    OtherProcesses {
        /// How many there are.
        count: usize,
    },
    /// Something could not be found out.
    Unknown {
        /// What is not known, as `whether ...`.
        what: String,
        /// How it can be.
        remedy: String,
    },
}

impl Use {
    /// Of a device that the kernel works on: it holds the device's lock meanwhile, for which a thread that reads waits in
    /// a way that no signal ends, not even that of the process's end.
    pub(crate) fn in_transit() -> Self {
        Self::Unknown {
            what: "what it is used for, since the kernel works on it and does not tell before that is done, nor lets \
                   this command end"
                .to_owned(),
            remedy: "wait until that is done, or end the process that its driver waits for".to_owned(),
        }
    }

    /// Whether the device must not be taken away without being told to.
    pub fn is_blocking(&self) -> bool {
        !matches!(
            self,
            Self::InterfaceUp { .. } | Self::Resume { .. } | Self::Console { last: false, .. }
        )
    }

    /// Whether it is not a use but a question without an answer.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether nothing ends it while the host runs.
    pub(crate) fn is_endless(&self) -> bool {
        match self {
            Self::Mounted { at, .. } => at.iter().any(|at| at == "/"),
            Self::Process { process, .. } => process.pid == 1,
            _ => false,
        }
    }

    /// Whether the device stays even when it is to be taken by force: the kernel could not do it, or would
    /// have nothing left to run from.
    pub fn outlasts_force(&self) -> bool {
        match self {
            Self::Process { hangs, .. } => *hangs,
            Self::Mounted { .. } => self.is_endless(),
            _ => false,
        }
    }

    /// How the host lets go of it.
    pub fn remedy(&self, bdf: HostBdf) -> String {
        match self {
            Self::InterfaceUp { interface } => format!("ip link set {interface} down"),
            Self::Address { holder, .. } => format!("ip address flush dev {holder}"),
            Self::DefaultRoute { holder, .. } => {
                format!("move the default route to another interface, then ip address flush dev {holder}")
            }
            Self::Carries {
                interface,
                upper,
                is_port,
            } => leave(interface, upper, *is_port),
            Self::Watched { interface, process } => match process {
                Some(process) => process.remedy(),
                None => format!("end what listens on {interface} (ss -0 -p shows it to root)"),
            },
            Self::InterfaceElsewhere => "stop the container that has it, or look with lsns -t net and move \
                                         it back with ip link set NAME netns 1 in there"
                .to_owned(),
            Self::Mounted { at, .. } => unmount(at),
            Self::Swap { file, .. } => format!("swapoff {}", quoted(file)),
            Self::Resume { .. } => "take resume= from the kernel's command line".to_owned(),
            Self::Part { whole, .. } => whole.remedy(),
            Self::Claimed { disk } => format!(
                "look with lsblk /dev/{disk} and, for containers that have it mounted, with lsns -t mnt, and \
                 end that"
            ),
            Self::Console { .. } => "add another console to the kernel's command line, as in \
                                     console=tty0 console=ttyS0, and reboot"
                .to_owned(),
            Self::VirtualFunctions { .. } => format!("strait host vf {bdf} 0"),
            Self::Process { process, .. } => process.remedy(),
            Self::OtherProcesses { .. } => format!("end them, strait host list {bdf} shows who is left"),
            Self::Unknown { remedy, .. } => remedy.clone(),
        }
    }
}

/// All `uses` in words that follow the device's name.
pub(crate) fn state(uses: &[Use]) -> String {
    let each: Vec<String> = uses.iter().map(Use::to_string).collect();
    let is = match uses.iter().all(Use::is_unknown) {
        true => "may be",
        false => "is",
    };
    format!("{is} in use: {}", each.join(", "))
}

/// How an interface leaves what stands on it.
fn leave(interface: &str, upper: &str, is_port: bool) -> String {
    match (is_port, upper) {
        // Its ports are entries of its own database, which would only be set up again.
        (true, "ovs-system" | "ovs-netdev") => format!("ovs-vsctl del-port {interface}"),
        (true, _) => format!("ip link set {interface} nomaster"),
        (false, _) => format!("ip link delete {upper}"),
    }
}

fn unmount(at: &[String]) -> String {
    if at.iter().any(|at| at == "/") {
        return "the host runs from it, so pass another device".to_owned();
    }
    // What lies in another comes behind it in order, and must go first.
    let at: Vec<String> = at.iter().rev().map(|at| quoted(at)).collect();
    match at.len() <= SHOWN {
        true => format!("umount {}", at.join(" ")),
        false => "unmount all of them (findmnt shows them)".to_owned(),
    }
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    match path.bytes().all(is_plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceUp { interface } => write!(f, "{interface} is up"),
            Self::Address { interface, holder } => write!(f, "{} has an address", through(interface, holder)),
            Self::DefaultRoute { interface, holder } => {
                write!(f, "{} carries the default route", through(interface, holder))
            }
            Self::Carries {
                interface,
                upper,
                is_port: true,
            } => write!(f, "{interface} is a port of {upper}"),
            Self::Carries { interface, upper, .. } => write!(f, "{upper} stands on {interface}"),
            Self::Watched { interface, process } => match process {
                Some(process) => write!(f, "{process} receives all that passes {interface}"),
                None => write!(f, "a process receives all that passes {interface}"),
            },
            Self::InterfaceElsewhere => write!(f, "its interface is in another network namespace"),
            Self::Mounted { disk, at } => write!(f, "{disk} is mounted at {}", listed(at)),
            Self::Swap { disk, .. } => write!(f, "{disk} is swap space"),
            Self::Resume { disk } => write!(f, "the host would wake up from {disk}"),
            Self::Part {
                disk,
                whole,
                others: 0,
            } => write!(f, "{disk} is part of {whole}"),
            Self::Part { disk, whole, others } => write!(f, "{disk} is part of {whole} and of {others} more"),
            Self::Claimed { disk } => write!(f, "the kernel keeps {disk} for something of its own"),
            Self::Console { console, last: true } => write!(f, "it is the last console ({console})"),
            Self::Console { console, last: false } => write!(f, "{console} is a console on it"),
            Self::VirtualFunctions { count: 1 } => write!(f, "it has an active virtual function"),
            Self::VirtualFunctions { count } => write!(f, "it has {count} active virtual functions"),
            Self::Process {
                process,
                file,
                hangs: false,
            } => write!(f, "{process} has {file} open"),
            Self::Process { process, file, .. } => write!(
                f,
                "{process} has {file} open, and the driver would wait for it for ever"
            ),
            Self::OtherProcesses { count } => write!(f, "{count} more processes have its files open"),
            Self::Unknown { what, .. } => write!(f, "it is not known {what}"),
        }
    }
}

fn through(interface: &str, holder: &str) -> String {
    match interface == holder {
        true => interface.to_owned(),
        false => format!("{interface} (through {holder})"),
    }
}

/// The first few, and how many more.
fn listed(places: &[String]) -> String {
    match places.len().saturating_sub(SHOWN) {
        0 => places.join(", "),
        more => format!("{} and {more} more", places[..SHOWN].join(", ")),
    }
}

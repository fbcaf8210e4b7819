//! Network interfaces, and what the host reaches through them.

use std::fs;
use std::path::Path;

use super::Use;
use crate::host::HostBdf;
use crate::host::process::OpenFiles;
use crate::host::sysfs::{Root, link_name, names_in, owners, read_text};

/// `IFF_UP`, `IFF_PROMISC` (linux/if.h).
const FLAG_UP: u32 = 1;
const FLAG_PROMISCUOUS: u32 = 0x100;
/// `ETH_P_ALL` (linux/if_ether.h), as /proc/net/packet writes it.
const ALL_PROTOCOLS: &str = "0003";
/// `ARPHRD_ETHER` (linux/if_arp.h).
const TYPE_ETHERNET: &str = "1";
/// What all ports of Open vSwitch are enslaved to, in the kernel's and in its own data path.
const SWITCHES: [&str; 2] = ["ovs-system", "ovs-netdev"];
/// `RTF_UP` and `RTF_REJECT` (linux/route.h, linux/ipv6_route.h).
const ROUTE_UP: u32 = 1;
const ROUTE_REJECT: u32 = 0x200;
/// Scope of an address that every interface gives itself (`IPV6_ADDR_LINKLOCAL`, net/ipv6.h).
const SCOPE_LINK: &str = "20";

/// An interface that is a device's own.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    /// The function that it is on, and those that keep the domain of that one.
    owners: Vec<HostBdf>,
    flags: u32,
    /// Itself and the bonds, bridges and VLANs above it.
    layers: Vec<String>,
    /// What it is a port of.
    master: Option<String>,
    /// Inodes of sockets that receive all that passes it.
    listeners: Vec<String>,
}

/// All of the host's.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    interfaces: Vec<Interface>,
    with_default_route: Vec<String>,
    with_address: Vec<String>,
}

impl Network {
    pub(super) fn read(root: &Root) -> Self {
        let mut network = Self::default();
        let sockets = packet_sockets(root);
        for name in root.names("sys/class/net") {
            let interface = Interface::read(root, name, &sockets);
            network
                .interfaces
                .extend(interface.filter(|one| !one.owners.is_empty()));
        }
        network.read_ipv4(root);
        network.read_ipv6(root);
        network
    }

    /// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`; an interface with an address has a
    /// route to its network.
    fn read_ipv4(&mut self, root: &Root) {
        let text = root.text("proc/net/route").unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else {
                continue;
            };
            let is_default = destination == "00000000" && mask == "00000000";
            self.add_route(interface, flags, is_default);
        }
    }

    /// `destination prefix source prefix next-hop metric refcnt use flags interface`.
    fn read_ipv6(&mut self, root: &Root) {
        let text = root.text("proc/net/ipv6_route").unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [destination, "00", _, _, _, _, _, _, flags, interface] = fields[..] else {
                continue;
            };
            if destination.bytes().all(|digit| digit == b'0') {
                self.add_route(interface, flags, true);
            }
        }
        // `address index prefix scope flags interface`.
        let text = root.text("proc/net/if_inet6").unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, _, _, scope, _, interface] = fields[..]
                && scope != SCOPE_LINK
            {
                self.with_address.push(interface.to_owned());
            }
        }
    }

    fn add_route(&mut self, interface: &str, flags: &str, is_default: bool) {
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        if flags & ROUTE_UP == 0 || flags & ROUTE_REJECT != 0 {
            return;
        }
        let list = match is_default {
            true => &mut self.with_default_route,
            false => &mut self.with_address,
        };
        list.push(interface.to_owned());
    }

    pub(super) fn interfaces(&self, bdf: HostBdf) -> Vec<String> {
        let own = self
            .interfaces
            .iter()
            .filter(|one| one.owners.first() == Some(&bdf));
        own.map(|interface| interface.name.clone()).collect()
    }

    pub(super) fn function_of(&self, name: &str) -> Option<HostBdf> {
        let found = self.interfaces.iter().find(|interface| interface.name == name);
        found?.owners.first().copied()
    }

    pub(super) fn uses(&self, files: &OpenFiles, bdf: HostBdf) -> Vec<Use> {
        let here = self.interfaces.iter().filter(|one| one.owners.contains(&bdf));
        here.flat_map(|interface| self.uses_of(files, interface))
            .collect()
    }

    fn uses_of(&self, files: &OpenFiles, at: &Interface) -> Vec<Use> {
        if let Some(reached) = self.reached(at) {
            return vec![reached];
        }
        let mut uses: Vec<Use> = at.carries().into_iter().collect();
        let is_watched = at.flags & FLAG_PROMISCUOUS != 0;
        uses.extend(
            at.listeners
                .first()
                .filter(|_| is_watched)
                .map(|inode| Use::Watched {
                    interface: at.name.clone(),
                    process: files.holder_of_socket(inode),
                }),
        );
        if at.flags & FLAG_UP != 0 {
            let interface = at.name.clone();
            uses.push(Use::InterfaceUp { interface });
        }
        uses
    }

    /// What the host reaches through `at`; the default route says all that an address would.
    fn reached(&self, at: &Interface) -> Option<Use> {
        let among = |list: &[String]| at.layers.iter().find(|layer| list.contains(layer)).cloned();
        let interface = at.name.clone();
        if let Some(holder) = among(&self.with_default_route) {
            return Some(Use::DefaultRoute { interface, holder });
        }
        let holder = among(&self.with_address)?;
        Some(Use::Address { interface, holder })
    }
}

impl Interface {
    fn read(root: &Root, name: String, sockets: &[(String, String)]) -> Option<Self> {
        let folder = root.path("sys/class/net").join(&name);
        let text = |file: &str| read_text(&folder.join(file)).unwrap_or_default();
        let index = text("ifindex");
        let listeners = sockets.iter().filter(|(at, _)| *at == index);
        Some(Self {
            owners: owners(&fs::canonicalize(&folder).ok()?),
            flags: u32::from_str_radix(text("flags").trim_start_matches("0x"), 16).unwrap_or(0),
            layers: layers(root, &name),
            master: link_name(&folder.join("master")).ok().flatten(),
            listeners: listeners.map(|(_, inode)| inode.clone()).collect(),
            name,
        })
    }

    /// The first thing that stands on it.
    fn carries(&self) -> Option<Use> {
        let upper = self.master.as_ref().or_else(|| self.layers.get(1))?;
        let is_switch = SWITCHES.contains(&upper.as_str());
        Some(Use::Carries {
            interface: self.name.clone(),
            upper: upper.clone(),
            is_port: self.master.is_some() || is_switch,
        })
    }
}

/// Interface index and inode of each socket that takes every protocol:
/// `sk RefCnt Type Proto Iface R Rmem User Inode`.
fn packet_sockets(root: &Root) -> Vec<(String, String)> {
    let text = root.text("proc/net/packet").unwrap_or_default();
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, ALL_PROTOCOLS, interface, _, _, _, inode] = fields[..] else {
            return None;
        };
        Some((interface.to_owned(), inode.to_owned()))
    };
    text.lines().filter_map(socket).collect()
}

/// `name` and everything stacked on it: links `upper_*` lead there.
fn layers(root: &Root, name: &str) -> Vec<String> {
    let mut layers = vec![name.to_owned()];
    let mut next = 0;
    while let Some(below) = layers.get(next).cloned() {
        let mut uppers = uppers(&root.path("sys/class/net").join(&below));
        if SWITCHES.contains(&below.as_str()) {
            uppers.extend(switch_interfaces(root));
        }
        uppers.retain(|upper| !layers.contains(upper));
        layers.extend(uppers);
        next += 1;
    }
    layers
}

fn uppers(folder: &Path) -> Vec<String> {
    let links = names_in(folder).into_iter();
    links
        .filter_map(|link| Some(link.strip_prefix("upper_")?.to_owned()))
        .collect()
}

/// The interfaces by which the host takes part in Open vSwitch. No link leads to them: they are virtual
/// Ethernet without a type of their own, without anything below them or at another end. A dummy looks the
/// same, and counts.
fn switch_interfaces(root: &Root) -> Vec<String> {
    let is_one = |name: &String| {
        let folder = root.path("sys/class/net").join(name);
        let text = |file: &str| read_text(&folder.join(file)).unwrap_or_default();
        let links = names_in(&folder);
        let is_other = |link: &String| {
            ["device", "tun_flags", "bridge", "bonding", "master"].contains(&link.as_str())
                || link.starts_with("lower_")
        };
        text("type") == TYPE_ETHERNET
            && text("iflink") == text("ifindex")
            && !text("uevent").contains("DEVTYPE=")
            && !links.iter().any(is_other)
            && !SWITCHES.contains(&name.as_str())
    };
    root.names("sys/class/net").into_iter().filter(is_one).collect()
}

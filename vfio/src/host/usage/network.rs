//! Network interfaces, and what the host reaches through them.

use super::Use;
use crate::host::HostBdf;
use crate::host::sysfs::{Root, functions_on, names_in};

/// `IFF_UP` (linux/if.h).
const FLAG_UP: u32 = 1;
/// `RTF_UP` and `RTF_REJECT` (linux/route.h, linux/ipv6_route.h).
const ROUTE_UP: u32 = 1;
const ROUTE_REJECT: u32 = 0x200;
/// Scope of an address that every interface gives itself (`IPV6_ADDR_LINKLOCAL`, net/ipv6.h).
const SCOPE_LINK: &str = "20";
/// Bridges on VLANs on bonds: more layers than this are a loop.
const MAX_LAYERS: usize = 8;

/// A physical interface.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    function: HostBdf,
    up: bool,
    /// Itself and the bonds, bridges and VLANs above it.
    layers: Vec<String>,
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
        for name in root.names("sys/class/net") {
            let folder = root.path("sys/class/net").join(&name);
            let Some(&function) = functions_on(&folder).last() else {
                continue;
            };
            let flags = root.text(folder.join("flags")).unwrap_or_default();
            let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
            network.interfaces.push(Interface {
                layers: layers(root, &name),
                function,
                up: flags & FLAG_UP != 0,
                name,
            });
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
        let own = self.of(bdf);
        own.map(|interface| interface.name.clone()).collect()
    }

    pub(super) fn function_of(&self, name: &str) -> Option<HostBdf> {
        let found = self.interfaces.iter().find(|interface| interface.name == name);
        found.map(|interface| interface.function)
    }

    fn of(&self, bdf: HostBdf) -> impl Iterator<Item = &Interface> {
        self.interfaces
            .iter()
            .filter(move |interface| interface.function == bdf)
    }

    pub(super) fn uses(&self, bdf: HostBdf) -> Vec<Use> {
        self.of(bdf)
            .filter_map(|interface| self.gravest(interface))
            .collect()
    }

    /// The default route says all that an address would, and an address more than "up".
    fn gravest(&self, at: &Interface) -> Option<Use> {
        let among = |list: &[String]| at.layers.iter().find(|layer| list.contains(layer)).cloned();
        let interface = at.name.clone();
        if let Some(holder) = among(&self.with_default_route) {
            return Some(Use::DefaultRoute { interface, holder });
        }
        if let Some(holder) = among(&self.with_address) {
            return Some(Use::Address { interface, holder });
        }
        at.up.then_some(Use::InterfaceUp { interface })
    }
}

/// `name` and everything stacked on it: links `upper_*` lead there.
fn layers(root: &Root, name: &str) -> Vec<String> {
    let mut layers = vec![name.to_owned()];
    let mut next = 0;
    while next < layers.len() && layers.len() <= MAX_LAYERS {
        let folder = root.path("sys/class/net").join(&layers[next]);
        for link in names_in(&folder) {
            match link.strip_prefix("upper_") {
                Some(upper) if !layers.iter().any(|layer| layer == upper) => layers.push(upper.to_owned()),
                _ => {}
            }
        }
        next += 1;
    }
    layers
}

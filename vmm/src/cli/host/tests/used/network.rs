//! Interfaces, and all that stands on them.

use super::super::bind::default_route;
use super::*;

pub(super) const NETWORK: &[Used] = &[
    used(
        "a port of Open vSwitch, whose bridge has the host's address",
        |host| {
            interface(host, "ovs-system", 5, "");
            interface(host, "br0", 6, "");
            on(host, "eth0", "ovs-system", true);
            default_route(host, "br0");
        },
        NIC,
        "eth0 (through br0) carries the default route",
        "move the default route to another interface, then ip address flush dev br0",
    ),
    used(
        "a port of Open vSwitch without an address of the host",
        |host| {
            interface(host, "ovs-system", 5, "");
            on(host, "eth0", "ovs-system", true);
        },
        NIC,
        "eth0 is a port of ovs-system",
        "ovs-vsctl del-port eth0",
    ),
    used(
        "a port of a bridge of guests",
        |host| {
            interface(host, "virbr0", 5, "DEVTYPE=bridge\n");
            on(host, "eth0", "virbr0", true);
        },
        NIC,
        "eth0 is a port of virbr0",
        "ip link set eth0 nomaster",
    ),
    used(
        "an address of a bridge on a VLAN on a bond",
        |host| {
            for (n, name) in ["bond0", "bond0.7", "br7"].into_iter().enumerate() {
                interface(host, name, n, "DEVTYPE=x\n");
            }
            on(host, "eth0", "bond0", true);
            on(host, "bond0", "bond0.7", false);
            on(host, "bond0.7", "br7", true);
            default_route(host, "br7");
        },
        NIC,
        "eth0 (through br7) carries the default route",
        "move the default route to another interface, then ip address flush dev br7",
    ),
    used(
        "the macvtap of a guest",
        |host| {
            interface(host, "macvtap0", 5, "DEVTYPE=macvtap\n");
            on(host, "eth0", "macvtap0", false);
        },
        NIC,
        "macvtap0 stands on eth0",
        "ip link delete macvtap0",
    ),
    used(
        "an interface in another network namespace",
        |host| {
            fs::remove_dir_all(host.path(format!("sys/devices/pci0000:00/{NIC_PATH}/net/eth0")))
                .expect("there");
            fs::remove_file(host.path("sys/class/net/eth0")).expect("there");
        },
        NIC,
        "its interface is in another network namespace",
        "stop the container that has it, or look with lsns -t net and move it back with ip link set NAME netns 1 \
         in there",
    ),
    used(
        "a process that receives all that passes",
        |host| {
            let folder = format!("sys/devices/pci0000:00/{NIC_PATH}/net/eth0");
            host.file(&format!("{folder}/flags"), "0x1102\n");
            host.file(&format!("{folder}/ifindex"), "2\n");
            host.file(
                "proc/net/packet",
                "sk RefCnt Type Proto Iface R Rmem User Inode\n0 3 3 0003 2 1 0 0 8899\n",
            );
            host.file("proc/77/comm", "suricata\n");
            fs::create_dir_all(host.path("proc/77/fd")).expect("a folder");
            std::os::unix::fs::symlink("socket:[8899]", host.path("proc/77/fd/5")).expect("a link");
        },
        NIC,
        "process 77 (suricata) receives all that passes eth0",
        "end process 77 (suricata)",
    ),
];

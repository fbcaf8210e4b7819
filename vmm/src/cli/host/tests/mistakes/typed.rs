//! What cannot be meant.

use super::{Mistake, usage};

pub(super) const TYPED: &[Mistake] = &[
    usage("no such command", "lst", "unrecognized subcommand 'lst'"),
    usage("bind nothing", "bind", "<DEVICE>"),
    usage(
        "bind a word",
        "bind nonsense",
        "`nonsense` is no PCI device, network interface or disk",
    ),
    usage("function 8", "bind 01:00.8", "`01:00.8` is no PCI device"),
    usage(
        "a device twice",
        "bind 01:00.0 pci_0000_01_00_0",
        "0000:01:00.0 is given twice",
    ),
    usage(
        "a device twice by its interface",
        "bind 01:00.0 eth0",
        "0000:01:00.0 is given twice",
    ),
    usage(
        "a driver that is a path",
        "bind 01:00.0 --driver ../../etc",
        "is no name of a driver",
    ),
    usage(
        "no driver behind --driver",
        "bind 01:00.0 --driver=",
        "no name of a driver",
    ),
    usage("an unknown option", "bind 01:00.0 --frobnicate", "--frobnicate"),
    usage("set-override without driver", "set-override 01:00.0", "<DRIVER>"),
    usage("restore nothing", "restore", "<DEVICE>"),
    usage("restore one and all", "restore 01:00.0 --all", "--all"),
    usage(
        "restore a word",
        "restore nonsense",
        "`nonsense` is no PCI device",
    ),
    usage("tree and groups", "list --tree --groups", "--groups"),
    usage("tree as JSON", "list --json --tree", "--tree"),
    usage(
        "an unknown class",
        "list --class gpu",
        "net, display, nvme, usb, audio",
    ),
    usage("list a word", "list nonsense", "`nonsense` is no PCI device"),
    usage(
        "doctor for a word",
        "doctor nonsense",
        "`nonsense` is no PCI device",
    ),
    usage(
        "doctor for odd memory",
        "doctor --memory lots",
        "\"lots\" is not a size",
    ),
    usage(
        "no address space",
        "doctor --address-spaces 0",
        "0 is not in 1..=64",
    ),
    usage("vf without number", "vf 01:00.0", "<N>"),
    usage("less than no VFs", "vf 01:00.0 -1", "-1"),
    usage("many VFs", "vf 01:00.0 many", "invalid digit"),
    usage(
        "too many VFs",
        "vf 01:00.0 8",
        "at most 7 virtual functions, not 8",
    ),
    usage(
        "VFs of an unknown interface",
        "vf eth9 1",
        "`eth9` is no PCI device",
    ),
    usage(
        "half an address",
        "vf 01:00.0 1 --mac 52:54",
        "an address is written 52:54:00:12:34:56",
    ),
    usage(
        "a group's address",
        "vf 01:00.0 1 --mac 01:00:5e:00:00:01",
        "the address of a group",
    ),
    usage("VLAN 4095", "vf 01:00.0 1 --vlan 4095", "4095 is not in 0..=4094"),
    usage(
        "more addresses than VFs",
        "vf 01:00.0 1 --vlan 1,2",
        "2 addresses or VLANs are given for 1",
    ),
];

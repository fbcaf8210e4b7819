//! Devices that cannot be had, and devices that the host uses.

use std::fs;

use super::*;

pub(super) const DEVICES: &[Mistake] = &[
    error(
        "no such device",
        |_| {},
        "bind 7f:00.0",
        "no PCI device 0000:7f:00.0; `strait host list` shows",
    ),
    error(
        "list an absent device",
        |_| {},
        "list 7f:00.0",
        "no PCI device 0000:7f:00.0",
    ),
    error(
        "no such vendor:device",
        |_| {},
        "bind 10de:1234",
        "no device of this host is a 10de:1234",
    ),
    error(
        "vendor:device of several",
        |_| {},
        "bind 8086:3420",
        "0000:00:01.0, 0000:00:02.0, 0000:00:03.0",
    ),
    error(
        "a host bridge",
        |_| {},
        "bind 00:00.0",
        "is a bridge and stays with the host",
    ),
    error(
        "a root port",
        |_| {},
        "bind 00:01.0",
        "pass the devices behind it",
    ),
    error("a PCI bridge", |_| {}, "bind 03:00.0", "0000:03:00.0 is a bridge"),
    error(
        "a bridge for another driver",
        |_| {},
        "bind 00:01.0 --driver pci-stub",
        "is a bridge",
    ),
    error(
        "no IOMMU: option missing",
        |host| {
            no_group(host);
            host.file("proc/cmdline", "quiet\n");
        },
        "bind 01:00.0",
        "add intel_iommu=on to GRUB_CMDLINE_LINUX",
    ),
    error(
        "no IOMMU: the option does not help",
        no_group,
        "bind 01:00.0",
        "intel_iommu=on is on the kernel's command line already, so its log says why",
    ),
    error(
        "no IOMMU: switched off",
        |host| {
            no_group(host);
            host.file("proc/cmdline", "intel_iommu=off\n");
        },
        "bind 01:00.0",
        "take intel_iommu=off from the kernel's command line",
    ),
    error(
        "no IOMMU: not in the firmware",
        |host| {
            no_group(host);
            fs::remove_file(host.path("sys/firmware/acpi/tables/DMAR")).expect("there");
        },
        "bind 01:00.0",
        "turn it on in the firmware",
    ),
    error(
        "no IOMMU on Fedora",
        |host| {
            no_group(host);
            host.file("proc/cmdline", "quiet\n");
            host.file("etc/os-release", "ID=fedora\n");
        },
        "bind 01:00.0",
        "grubby --update-kernel=ALL --args=intel_iommu=on",
    ),
    error(
        "no IOMMU on AMD",
        |host| {
            no_group(host);
            fs::remove_file(host.path("sys/firmware/acpi/tables/DMAR")).expect("there");
            host.file("sys/firmware/acpi/tables/IVRS", "");
            host.file("proc/cmdline", "amd_iommu=off\n");
        },
        "bind 01:00.0",
        "take amd_iommu=off from",
    ),
    error(
        "a garbled sysfs",
        |host| host.file("sys/bus/pci/devices/0000:01:00.0/class", "network\n"),
        "bind 01:00.0",
        "cannot read what sysfs says of 0000:01:00.0",
    ),
    error(
        "no PCI bus at all",
        |host| fs::remove_dir_all(host.path("sys/bus/pci")).expect("there"),
        "list",
        "cannot list /sys/bus/pci/devices",
    ),
    error(
        "no driver_override",
        |host| fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0/driver_override")).expect("there"),
        "bind 01:00.0",
        "has no driver_override",
    ),
];

pub(super) const IN_USE: &[Mistake] = &[
    error(
        "default route",
        |host| default_route(host, "eth0"),
        "bind 01:00.0",
        "eth0 carries the default route",
    ),
    error(
        "default route of IPv6",
        |host| {
            let zero = "0".repeat(32);
            let route = format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003 eth0\n");
            host.file("proc/net/ipv6_route", &route);
        },
        "bind eth0",
        "eth0 carries the default route",
    ),
    error(
        "default route of a bridge",
        |host| {
            host.link("sys/class/net/eth0/upper_br0", "sys/class/net/br0");
            default_route(host, "br0");
        },
        "bind eth0",
        "eth0 (through br0) carries the default route",
    ),
    error(
        "an address",
        |host| address(host, "eth0"),
        "bind 01:00.0",
        "eth0 has an address; ip address flush dev eth0, or take it all the same with strait host bind --force",
    ),
    error(
        "an address of IPv6",
        |host| {
            let text = "fe800000000000000000000000000001 02 40 20 80     eth1\n\
                        20010db8000000000000000000000001 02 40 00 80     eth1\n";
            host.file("proc/net/if_inet6", text);
        },
        "bind eth1",
        "eth1 has an address",
    ),
    error(
        "a mounted disk",
        |host| mounted(host, "259:1"),
        "bind nvme0n1",
        "nvme0n1 is mounted at /srv/my data",
    ),
    error(
        "a disk mounted by btrfs",
        |host| mounted(host, "0:42"),
        "bind nvme0n1",
        "nvme0n1 is mounted at /srv/my data; umount '/srv/my data'",
    ),
    error(
        "a disk mounted by LVM",
        |host| {
            host.file("sys/devices/virtual/block/dm-0/slaves/nvme0n1p1", "");
            host.link("sys/class/block/dm-0", "sys/devices/virtual/block/dm-0");
            host.link("sys/dev/block/254:0", "sys/devices/virtual/block/dm-0");
            mounted(host, "254:0");
        },
        "bind 02:00.0",
        "nvme0n1 is mounted",
    ),
    error(
        "a disk that is swapped to",
        |host| {
            host.file(
                "proc/swaps",
                "Filename Type Size\n/dev/nvme0n1p1 partition 1024 0 -2\n",
            );
        },
        "bind 02:00.0",
        "nvme0n1 is swap space",
    ),
    error(
        "the last console",
        |host| host.file("sys/class/tty/console/active", "tty0\n"),
        "bind 05:00.0",
        "it is the last console (tty0)",
    ),
    error(
        "a process",
        |host| {
            host.file(
                "sys/devices/pci0000:00/0000:00:04.0/0000:05:00.0/drm/card0/uevent",
                "DEVNAME=dri/card0\n",
            );
            host.add_process(812, "Xorg", "/dev/dri/card0");
        },
        "bind 05:00.0",
        "process 812 (Xorg) has /dev/dri/card0 open; end process 812 (Xorg)",
    ),
    error(
        "a busy member of the group",
        |host| {
            host.file(
                "sys/devices/pci0000:00/0000:00:04.0/0000:05:00.1/sound/c0/uevent",
                "DEVNAME=snd/c0\n",
            );
            host.add_process(900, "pipewire", "/dev/snd/c0");
        },
        "bind --group 05:00.0",
        "0000:05:00.1 is in use: process 900 (pipewire)",
    ),
    error(
        "a physical function with VFs",
        |host| drop(done(host, "host vf 01:00.0 2")),
        "bind 01:00.0",
        "it has 2 active virtual functions; strait host vf 0000:01:00.0 0",
    ),
    error(
        "a VF with the host's address",
        |host| {
            virtual_function(host);
            address(host, "eth9");
        },
        "bind 01:10.0",
        "0000:01:10.0 is in use: eth9 has an address",
    ),
    error(
        "another tool's override",
        |host| {
            host.file(
                "sys/bus/pci/devices/0000:01:00.0/driver_override",
                "xen-pciback\n",
            );
        },
        "bind 01:00.0",
        "driver_override of 0000:01:00.0 is xen-pciback already, set by another tool",
    ),
];

//! The way back, and virtual functions.

use std::fs;

use strait_vfio::host::testing::Does;

use super::*;

pub(super) const RESTORE: &[Mistake] = &[
    error(
        "restore an absent device",
        |_| {},
        "restore 7f:00.0",
        "no PCI device 0000:7f:00.0",
    ),
    error(
        "restore what a guest has",
        |host| {
            taken(host);
            host.add_process(4711, "strait", "/dev/vfio/14");
        },
        "restore 01:00.0",
        "0000:01:00.0 is in use by process 4711 (strait)",
    ),
    error(
        "restore all while a guest has one",
        |host| {
            taken(host);
            host.add_process(4711, "qemu-system-x86", "/dev/vfio/14");
        },
        "restore --all",
        "in use by process 4711 (qemu-system-x86)",
    ),
    error(
        "restore what another tool moved on",
        |host| {
            taken(host);
            host.add_driver("uio_pci_generic");
            fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0/driver")).expect("bound");
            host.link(
                "sys/bus/pci/devices/0000:01:00.0/driver",
                "sys/bus/pci/drivers/uio_pci_generic",
            );
        },
        "restore 01:00.0",
        "is bound to uio_pci_generic now, not to vfio-pci as strait left it",
    ),
    error(
        "the old driver is gone",
        |host| {
            taken(host);
            fs::remove_dir_all(host.path("sys/bus/pci/drivers/igb")).expect("there");
            host.fault("igb", 0, Does::Fails(libc::ENOENT));
        },
        "restore 01:00.0",
        "there is no driver igb",
    ),
    error(
        "the old driver fails",
        |host| {
            taken(host);
            host.fault("igb/bind", 0, Does::Fails(libc::EIO));
        },
        "restore 01:00.0",
        "cannot give 0000:01:00.0 to igb",
    ),
    error(
        "restore without permission",
        |host| {
            taken(host);
            fails(host, "driver_override", libc::EACCES);
        },
        "restore 01:00.0",
        "run as root",
    ),
];

pub(super) const VIRTUAL: &[Mistake] = &[
    error(
        "VFs of what has none",
        |_| {},
        "vf 02:00.0 1",
        "0000:02:00.0 has no SR-IOV",
    ),
    error("VFs of an absent device", |_| {}, "vf 7f:00.0 1", "no PCI device"),
    error(
        "VFs of a VF",
        virtual_function,
        "vf 01:10.0 1",
        "name its physical function 0000:01:00.0",
    ),
    error(
        "VFs of a passed device",
        taken,
        "vf 01:00.0 2",
        "has vfio-pci, and only the device's own driver makes virtual functions",
    ),
    error(
        "VFs that a guest has",
        |host| {
            virtual_function(host);
            host.add_process(4711, "strait", "/dev/vfio/100");
        },
        "vf 01:00.0 0",
        "0000:01:10.0 of 0000:01:00.0 is in use by process 4711 (strait)",
    ),
    error(
        "VFs that a guest has, by force",
        |host| {
            virtual_function(host);
            host.add_process(4711, "strait", "/dev/vfio/100");
        },
        "vf 01:00.0 0 --force",
        "is in use by process 4711 (strait)",
    ),
    error(
        "VFs that the host uses",
        |host| {
            virtual_function(host);
            address(host, "eth9");
        },
        "vf 01:00.0 3",
        "eth9 has an address; all virtual functions vanish",
    ),
    error(
        "VFs without permission",
        |host| fails(host, "sriov_numvfs", libc::EACCES),
        "vf eth0 1",
        "run as root",
    ),
    error(
        "no room for VFs",
        |host| fails(host, "sriov_numvfs", libc::ENOMEM),
        "vf eth0 1",
        "pci=realloc",
    ),
    error(
        "VFs that do not come",
        |host| host.fault("sriov_numvfs", 0, Does::Nothing),
        "vf eth0 2",
        "made 0 of 2 virtual functions",
    ),
];

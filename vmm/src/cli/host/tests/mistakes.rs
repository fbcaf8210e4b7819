//! What operators get wrong, and what goes wrong for them: each is told in one line, ends with the right
//! code, and leaves the host as it was. `cargo test -p strait mistakes -- --nocapture` prints the table.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use strait_vfio::host::testing::Does;

use super::bind::default_route;
use super::*;

/// One mistake.
struct Mistake {
    name: &'static str,
    /// What the host is like.
    prepare: fn(&FakeHost),
    /// Behind `strait host`.
    typed: &'static str,
    code: u8,
    /// A part of the line that cannot be there by chance.
    says: &'static str,
}

const fn usage(name: &'static str, typed: &'static str, says: &'static str) -> Mistake {
    Mistake {
        name,
        prepare: |_| {},
        typed,
        code: 2,
        says,
    }
}

const fn error(
    name: &'static str,
    prepare: fn(&FakeHost),
    typed: &'static str,
    says: &'static str,
) -> Mistake {
    Mistake {
        name,
        prepare,
        typed,
        code: 1,
        says,
    }
}

const TYPED: &[Mistake] = &[
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

const DEVICES: &[Mistake] = &[
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
        no_group,
        "bind 01:00.0",
        "add intel_iommu=on to GRUB_CMDLINE_LINUX",
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

const IN_USE: &[Mistake] = &[
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
        "eth0 has an address; ip address flush dev eth0, or take it all the same with --force",
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
        "nvme0n1 is mounted at /srv/my data; umount /srv/my data",
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

const FAILURES: &[Mistake] = &[
    error(
        "a driver that nobody has",
        |_| {},
        "bind 01:00.0 --driver nosuch",
        "there is no driver nosuch",
    ),
    error(
        "a module without driver",
        |_| {},
        "bind 01:00.0 --driver hollow",
        "no PCI driver of that name",
    ),
    error(
        "no vfio-pci in this kernel",
        |host| {
            fs::remove_dir_all(host.path("sys/bus/pci/drivers/vfio-pci")).expect("there");
            host.fault("vfio-pci", 0, Does::Fails(libc::ENOENT));
        },
        "bind 01:00.0",
        "Module vfio-pci not found",
    ),
    error(
        "no permission",
        |host| fails(host, "driver_override", libc::EACCES),
        "bind 01:00.0",
        "; run as root",
    ),
    error(
        "a read-only /sys",
        |host| fails(host, "driver_override", libc::EROFS),
        "bind 01:00.0",
        "/sys is read-only here",
    ),
    error(
        "a driver in use",
        |host| fails(host, "driver/unbind", libc::EBUSY),
        "bind 01:00.0",
        "cannot take from igb",
    ),
    error(
        "a driver that clings",
        |host| host.fault("driver/unbind", 0, Does::Nothing),
        "bind 01:00.0",
        "igb does not let go of 0000:01:00.0",
    ),
    error(
        "a driver that hangs",
        |host| host.fault("driver/unbind", 0, Does::Hangs),
        "bind 01:00.0",
        "a process that uses it keeps the driver waiting",
    ),
    error(
        "a driver that does not want it",
        |host| host.fault("drivers_probe", 0, Does::Nothing),
        "bind 01:00.0",
        "vfio-pci does not take 0000:01:00.0",
    ),
    error(
        "a probe that fails",
        |host| fails(host, "drivers_probe", libc::EINVAL),
        "bind 01:00.0",
        "cannot have vfio-pci probe 0000:01:00.0",
    ),
    error(
        "another program is faster",
        |host| {
            host.add_driver("thief");
            host.fault("drivers_probe", 0, Does::Steals(NIC, "thief"));
        },
        "bind 01:00.0",
        "another program gave 0000:01:00.0 to thief meanwhile",
    ),
    error(
        "udev binds it again",
        |host| host.fault("driver/unbind", 0, Does::Steals(NIC, "igb")),
        "bind 01:00.0",
        "igb does not let go of 0000:01:00.0",
    ),
    error(
        "unplugged before it is touched",
        |host| host.fault("driver_override", 0, Does::Unplugs(NIC)),
        "bind 01:00.0",
        "0000:01:00.0 vanished meanwhile",
    ),
    error(
        "unplugged midway",
        |host| host.fault("driver/unbind", 0, Does::Unplugs(NIC)),
        "bind 01:00.0",
        "0000:01:00.0 vanished meanwhile",
    ),
    error(
        "the second of two fails",
        |host| host.fault("drivers_probe", 1, Does::Nothing),
        "bind 01:00.0 02:00.0",
        "vfio-pci does not take 0000:02:00.0",
    ),
    error(
        "a member of the group fails",
        |host| host.fault("driver/unbind", 1, Does::Fails(libc::EBUSY)),
        "bind --group 05:00.0",
        "cannot take from snd_hda_intel 0000:05:00.1",
    ),
    error(
        "a damaged journal",
        |host| host.file("run/strait/undo/0000:01:00.0", "strait undo 1\ndri"),
        "bind 01:00.0",
        "the undo journal /run/strait/undo/0000:01:00.0 is damaged; `strait host restore 0000:01:00.0`",
    ),
    error(
        "an empty journal",
        |host| host.file("run/strait/undo/0000:01:00.0", ""),
        "bind 01:00.0",
        "is damaged",
    ),
    error(
        "no place for the journal",
        |host| host.file("run/strait", ""),
        "bind 01:00.0",
        "cannot use the undo journal",
    ),
    error(
        "a binding that cannot be saved",
        |host| host.file("etc/udev", ""),
        "bind --save 01:00.0",
        "cannot save the binding of 0000:01:00.0 in /etc/udev/rules.d/10-strait-0000:01:00.0.rules",
    ),
    error(
        "half of it cannot be saved",
        |host| host.file("etc/modules-load.d", ""),
        "bind --save 01:00.0",
        "in /etc/modules-load.d/strait-0000:01:00.0.conf",
    ),
];

const RESTORE: &[Mistake] = &[
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
        "vfio-pci hangs",
        |host| {
            taken(host);
            host.fault("driver/unbind", 0, Does::Hangs);
        },
        "restore 01:00.0",
        "keeps the driver waiting",
    ),
    error(
        "the old driver fails",
        |host| {
            taken(host);
            host.fault("igb/bind", 0, Does::Fails(libc::EIO));
        },
        "restore 01:00.0",
        "cannot give to igb 0000:01:00.0",
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

const VIRTUAL: &[Mistake] = &[
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

#[test]
fn each_mistake_is_one_line_and_changes_nothing() {
    let tables = [TYPED, DEVICES, IN_USE, FAILURES, RESTORE, VIRTUAL];
    let mistakes: Vec<&Mistake> = tables.into_iter().flatten().collect();
    assert!(mistakes.len() >= 60);
    let wrong: Vec<String> = mistakes
        .iter()
        .filter_map(|mistake| check(mistake).err())
        .collect();
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Makes `mistake` and says what is wrong with what comes of it.
fn check(mistake: &Mistake) -> Result<(), String> {
    let Mistake {
        name,
        prepare,
        typed,
        code,
        says,
    } = mistake;
    let host = host();
    host.add_driver("vfio-pci");
    prepare(&host);
    let before = host.picture();
    let failure = match run(&host, &format!("host {typed}")) {
        Ok(output) => return Err(format!("{name}: {typed} went well: {output:?}")),
        Err(failure) => failure,
    };
    println!(
        "{name}\n  $ strait host {typed}\n  {} strait: {}",
        failure.code, failure.message
    );
    let wrong = |what: String| Err(format!("{name}: {what}"));
    if failure.code != *code {
        return wrong(format!(
            "code {} instead of {code}: {}",
            failure.code, failure.message
        ));
    }
    if failure.message.contains('\n') || !failure.message.contains(says) {
        return wrong(format!("{:?} does not say {says:?}", failure.message));
    }
    let changes = changes(&host, &before);
    match changes.is_empty() {
        true => Ok(()),
        false => wrong(format!("changed: {changes:?}")),
    }
}

/// Files that are not as they were; a device that was pulled out has none.
fn changes(host: &FakeHost, before: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let after = host.picture();
    let all = before.keys().chain(after.keys());
    let gone = !host.path("sys/bus/pci/devices").join(NIC).exists();
    let of_gone = |path: &PathBuf| {
        gone && path.starts_with(host.path("sys")) && path.display().to_string().contains(NIC)
    };
    let group = host.path("sys/kernel/iommu_groups/14");
    let of_group = |path: &PathBuf| gone && path.starts_with(&group);
    all.filter(|path| before.get(*path) != after.get(*path))
        .filter(|path| !of_gone(path) && !of_group(path))
        .cloned()
        .collect()
}

fn no_group(host: &FakeHost) {
    fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0/iommu_group")).expect("there");
}

fn fails(host: &FakeHost, file: &'static str, errno: i32) {
    host.fault(file, 0, Does::Fails(errno));
}

fn taken(host: &FakeHost) {
    done(host, "host bind 01:00.0");
}

/// One, with interface eth9.
fn virtual_function(host: &FakeHost) {
    done(host, "host vf 01:00.0 1");
    host.add_interface("0000:00:01.0/0000:01:10.0", "eth9");
}

fn address(host: &FakeHost, interface: &str) {
    let text = format!(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
         {interface}\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    );
    host.file("proc/net/route", &text);
}

fn mounted(host: &FakeHost, number: &str) {
    host.file(
        "proc/self/mountinfo",
        &format!("36 35 {number} / /srv/my\\040data rw - btrfs /dev/nvme0n1p1 rw\n"),
    );
}

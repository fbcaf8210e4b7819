//! What the kernel, another program or the disk does not do, and that nothing is left half done.

use std::fs;

use strait_vfio::host::testing::Does;

use super::*;

pub(super) const FAILURES: &[Mistake] = &[
    error(
        "a driver that nobody has",
        |_| {},
        "bind 01:00.0 --driver nosuch",
        "there is no driver nosuch",
    ),
    error(
        "a driver that nobody has, without a try",
        |_| {},
        "bind --dry-run 01:00.0 --driver nosuch",
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
        "cannot take 0000:01:00.0 from igb",
    ),
    error(
        "a driver that clings",
        |host| host.fault("driver/unbind", 0, Does::Nothing),
        "bind 01:00.0",
        "igb does not let go of 0000:01:00.0",
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
        "cannot take 0000:05:00.1 from snd_hda_intel",
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

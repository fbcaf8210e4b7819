//! Every way in which a host uses a device: `list`, `doctor` and `bind` say the same of it, and nobody takes it.

use super::bind::default_route;
use super::*;

const DISK: &str = "sys/devices/pci0000:00/0000:00:02.0/0000:02:00.0/nvme/nvme0/nvme0n1";
const VMD_PATH: &str = "0000:00:0e.0";
const BEHIND_VMD: &str = "0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0";

/// A host in which `device` is in use.
struct Used {
    name: &'static str,
    prepare: fn(&FakeHost),
    device: &'static str,
    /// All that is said of it.
    says: &'static str,
    /// What is to be done first.
    remedy: &'static str,
}

const fn used(
    name: &'static str,
    prepare: fn(&FakeHost),
    device: &'static str,
    says: &'static str,
    remedy: &'static str,
) -> Used {
    Used {
        name,
        prepare,
        device,
        says,
        remedy,
    }
}

const STORAGE: &[Used] = &[
    used(
        "the root file system in a ZFS pool",
        |host| {
            mount(host, "36 1 0:40 / / rw - zfs rpool/ROOT/debian rw");
            mount(host, "37 36 0:41 / /home rw - zfs rpool/home rw");
            zfs_member(host, "rpool");
        },
        NVME,
        "nvme0n1 is mounted at /, /home, nvme0n1 is part of the imported ZFS pool rpool",
        "the host runs from it, so pass another device",
    ),
    used(
        "a ZFS pool that is imported and not mounted",
        |host| {
            host.file("proc/spl/kstat/zfs/tank/io", "");
            host.file("proc/spl/kstat/zfs/arcstats", "");
            zfs_member(host, "tank");
        },
        NVME,
        "nvme0n1 is part of the imported ZFS pool tank",
        "zpool export tank",
    ),
    used(
        "a RAID array that is active and not mounted",
        |host| made_of(host, "md0", "nvme0n1p1"),
        NVME,
        "nvme0n1 is part of the active RAID array md0",
        "mdadm --stop /dev/md0",
    ),
    used(
        "an LVM volume that a process has open",
        |host| {
            volume(host, "dm-5", "vg-guest", "LVM-x", "nvme0n1p1");
            host.add_process(4711, "qemu-system-x86", "/dev/dm-5");
        },
        NVME,
        "process 4711 (qemu-system-x86) has /dev/dm-5 open",
        "end process 4711 (qemu-system-x86)",
    ),
    used(
        "an LVM volume on a RAID array that nobody has open",
        |host| {
            made_of(host, "md0", "nvme0n1p1");
            volume(host, "dm-5", "vg-guest", "LVM-x", "md0");
        },
        NVME,
        "nvme0n1 is part of the active LVM volume vg-guest",
        "lvchange -an /dev/mapper/vg-guest",
    ),
    used(
        "an open encrypted partition",
        |host| volume(host, "dm-0", "luks-1", "CRYPT-LUKS2-x", "nvme0n1p1"),
        NVME,
        "nvme0n1 is part of the open encrypted volume luks-1",
        "cryptsetup close luks-1",
    ),
    used(
        "a path of a multipath device",
        |host| volume(host, "dm-0", "mpatha", "mpath-3600", "nvme0n1"),
        NVME,
        "nvme0n1 is part of the multipath device mpatha",
        "multipath -f mpatha",
    ),
    used(
        "the cache of another disk",
        |host| made_of(host, "bcache0", "nvme0n1"),
        NVME,
        "nvme0n1 is part of the cached device bcache0",
        "echo 1 > /sys/block/bcache0/bcache/stop",
    ),
    used(
        "a loop device on a disk",
        |host| {
            block(host, "loop0");
            host.file(
                "sys/devices/virtual/block/loop0/loop/backing_file",
                "/dev/nvme0n1\n",
            );
        },
        NVME,
        "nvme0n1 is part of the loop device loop0",
        "losetup -d /dev/loop0",
    ),
    used(
        "a mirror of DRBD",
        |host| made_of(host, "drbd1", "nvme0n1p1"),
        NVME,
        "nvme0n1 is part of the block device drbd1",
        "take down drbd1 (lsblk shows what it is)",
    ),
    used(
        "swap on an encrypted partition",
        |host| {
            volume(host, "dm-1", "swap", "CRYPT-PLAIN-x", "nvme0n1p1");
            host.file(
                "proc/swaps",
                "Filename Type Size\n/dev/dm-1 partition 1024 0 -2\n",
            );
        },
        NVME,
        "nvme0n1 is swap space",
        "swapoff /dev/dm-1",
    ),
    used(
        "the second disk of a mounted btrfs",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:06.0/ata1/host0/block/sda";
            host.file(&format!("{folder}/uevent"), "DEVNAME=sda\nDEVTYPE=disk\n");
            host.link("sys/class/block/sda", folder);
            host.link("sys/fs/btrfs/4711-0815/devices/sda", folder);
            host.link(
                "sys/fs/btrfs/4711-0815/devices/nvme0n1p1",
                &format!("{DISK}/nvme0n1p1"),
            );
            mount(host, "36 1 0:42 /@srv /srv rw - btrfs /dev/sda rw");
        },
        NVME,
        "nvme0n1 is mounted at /srv",
        "umount /srv",
    ),
    used(
        "a btrfs that is mounted in another namespace",
        |host| host.link("sys/fs/btrfs/4711-0815/devices/nvme0n1", DISK),
        NVME,
        "nvme0n1 is part of the mounted btrfs 4711-0815",
        "unmount it in the mount namespace that has it (lsns -t mnt)",
    ),
    used(
        "the second disk of a bcachefs",
        |host| mount(host, "36 1 0:43 / /srv rw - bcachefs /dev/sda:/dev/nvme0n1 rw"),
        NVME,
        "nvme0n1 is mounted at /srv",
        "umount /srv",
    ),
    used(
        "the log of an XFS on another disk",
        |host| {
            mount(
                host,
                "36 1 8:1 / /srv rw - xfs /dev/sda1 rw,logdev=/dev/nvme0n1p1,noquota",
            );
        },
        NVME,
        "nvme0n1 is mounted at /srv",
        "umount /srv",
    ),
    used(
        "the journal of an ext4 on another disk",
        |host| {
            host.file("proc/fs/jbd2/sda1-8/info", "");
            host.file("proc/fs/jbd2/nvme0n1p1/info", "");
        },
        NVME,
        "nvme0n1 is part of a mounted file system, whose journal is on nvme0n1p1",
        "unmount that file system",
    ),
    used(
        "a disk that is exported by iSCSI",
        |host| {
            host.file(
                "sys/kernel/config/target/core/iblock_0/disk/udev_path",
                "/dev/nvme0n1\n",
            );
        },
        NVME,
        "nvme0n1 is part of what the host exports by /sys/kernel/config/target/core/iblock_0/disk",
        "end the export in /sys/kernel/config/target/core/iblock_0/disk",
    ),
    used(
        "a disk that is exported by NVMe over fabrics",
        |host| {
            let folder = "sys/kernel/config/nvmet/subsystems/nqn.a/namespaces/1";
            host.file(&format!("{folder}/device_path"), "/dev/nvme0n1\n");
            host.file(&format!("{folder}/enable"), "1\n");
        },
        NVME,
        "nvme0n1 is part of what the host exports by /sys/kernel/config/nvmet/subsystems/nqn.a/namespaces/1",
        "end the export in /sys/kernel/config/nvmet/subsystems/nqn.a/namespaces/1",
    ),
    used(
        "a disk that the kernel keeps for nobody knows whom",
        |host| host.claimed("nvme0n1", libc::EBUSY),
        NVME,
        "the kernel keeps nvme0n1 for something of its own",
        "look with lsblk /dev/nvme0n1 and, for containers that have it mounted, with lsns -t mnt, and end that",
    ),
    used(
        "a disk with several controllers",
        |host| {
            let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
            host.file(
                &format!("{subsystem}/nvme3n1/uevent"),
                "DEVNAME=nvme3n1\nDEVTYPE=disk\n",
            );
            host.link(&format!("{subsystem}/nvme3"), DISK.trim_end_matches("/nvme0n1"));
            host.link("sys/class/block/nvme3n1", &format!("{subsystem}/nvme3n1"));
            host.link("sys/dev/block/259:7", &format!("{subsystem}/nvme3n1"));
            mount(host, "36 1 259:7 / /srv rw - ext4 /dev/nvme3n1 rw");
        },
        NVME,
        "nvme3n1 is mounted at /srv",
        "umount /srv",
    ),
    used(
        "a VMD controller with the root file system behind it",
        behind_vmd,
        "0000:00:0e.0",
        "nvme9n1 is mounted at /",
        "the host runs from it, so pass another device",
    ),
    used(
        "a USB controller with a disk behind hubs",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/usb1/1-1/1-1.4/1-1.4.2/1-1.4.2:1.0/host6/target6:0:0/\
                          6:0:0:0/block/sdb";
            host.file(&format!("{folder}/sdb1/partition"), "1\n");
            host.link("sys/class/block/sdb", folder);
            host.link("sys/class/block/sdb1", &format!("{folder}/sdb1"));
            host.link("sys/dev/block/8:17", &format!("{folder}/sdb1"));
            mount(host, "36 1 8:17 / /boot rw - vfat /dev/sdb1 rw");
        },
        "0000:00:05.0",
        "sdb is mounted at /boot",
        "umount /boot",
    ),
];

const NETWORK: &[Used] = &[
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
            std::fs::remove_dir_all(host.path(format!("sys/devices/pci0000:00/{NIC_PATH}/net/eth0")))
                .expect("there");
            std::fs::remove_file(host.path("sys/class/net/eth0")).expect("there");
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
            std::fs::create_dir_all(host.path("proc/77/fd")).expect("a folder");
            std::os::unix::fs::symlink("socket:[8899]", host.path("proc/77/fd/5")).expect("a link");
        },
        NIC,
        "process 77 (suricata) receives all that passes eth0",
        "end process 77 (suricata)",
    ),
];

const FILES: &[Used] = &[
    used(
        "a card of NVIDIA's driver",
        |host| {
            nvidia(host);
            let folder = format!("sys/devices/pci0000:00/{GPU_PATH}/drm/card0");
            host.file(&format!("{folder}/uevent"), "DEVNAME=dri/card0\n");
            host.add_process(812, "Xorg", "/dev/dri/card0");
            host.add_process(812, "Xorg", "/dev/nvidia0");
        },
        GPU,
        "process 812 (Xorg) has /dev/nvidia0 open, and the driver would wait for it for ever",
        "end process 812 (Xorg)",
    ),
    used(
        "a card of amdgpu that computes",
        |host| {
            bound(host, "amdgpu");
            host.add_process(812, "python3", "/dev/kfd");
        },
        GPU,
        "process 812 (python3) has /dev/kfd open",
        "end process 812 (python3)",
    ),
    used(
        "a guest that has a mediated device",
        |host| {
            host.link(
                &format!("sys/devices/pci0000:00/{GPU_PATH}/4d3c-uuid/iommu_group"),
                "sys/kernel/iommu_groups/99",
            );
            host.add_process(4711, "qemu-system-x86", "/dev/vfio/99");
        },
        GPU,
        "process 4711 (qemu-system-x86) has /dev/vfio/99 open",
        "end process 4711 (qemu-system-x86)",
    ),
    used(
        "a NIC of DPDK",
        |host| {
            let folder = format!("sys/devices/pci0000:00/{NIC_PATH}/uio/uio0");
            host.file(&format!("{folder}/uevent"), "MAJOR=240\nMINOR=0\nDEVNAME=uio0\n");
            host.add_process(55, "dpdk-testpmd", "/dev/uio0");
        },
        NIC,
        "process 55 (dpdk-testpmd) has /dev/uio0 open",
        "end process 55 (dpdk-testpmd)",
    ),
    used(
        "a file of it in a chroot",
        |host| {
            let folder = format!("sys/devices/pci0000:00/{GPU_PATH}/drm/renderD128");
            host.file(&format!("{folder}/uevent"), "DEVNAME=dri/renderD128\n");
            host.add_process(90, "ffmpeg", "/srv/chroot/dev/dri/renderD128 (deleted)");
        },
        GPU,
        "process 90 (ffmpeg) has /dev/dri/renderD128 open",
        "end process 90 (ffmpeg)",
    ),
    used(
        "a keyboard behind a USB controller",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/usb1/1-1/1-1:1.0/0003:046D:C31C.0001/input/input5/event3";
            host.file(
                &format!("{folder}/uevent"),
                "MAJOR=13\nMINOR=67\nDEVNAME=input/event3\n",
            );
            host.add_process(600, "systemd-logind", "/dev/input/event3");
        },
        "0000:00:05.0",
        "process 600 (systemd-logind) has /dev/input/event3 open",
        "end process 600 (systemd-logind)",
    ),
    used(
        "a serial card with somebody logged in",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/tty/ttyS4";
            host.file(&format!("{folder}/uevent"), "DEVNAME=ttyS4\n");
            host.add_process(700, "agetty", "/dev/ttyS4");
            let group = "0::/system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS4.service\n";
            host.file("proc/700/cgroup", group);
        },
        "0000:00:05.0",
        "process 700 (agetty) has /dev/ttyS4 open",
        "systemctl stop serial-getty@ttyS4.service",
    ),
    used(
        "sound that a user's service plays",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:04.0/0000:05:00.1/sound/card0/controlC0";
            host.file(&format!("{folder}/uevent"), "DEVNAME=snd/controlC0\n");
            host.add_process(900, "pipewire", "/dev/snd/controlC0");
            let slice = "0::/user.slice/user-1000.slice/user@1000.service/session.slice";
            host.file("proc/900/cgroup", &format!("{slice}/pipewire.service\n"));
        },
        SOUND,
        "process 900 (pipewire) has /dev/snd/controlC0 open",
        "systemctl stop --user -M 1000@ pipewire.service",
    ),
    used(
        "a watchdog that init feeds",
        |host| {
            let folder = "sys/devices/pci0000:00/0000:00:05.0/watchdog/watchdog0";
            host.file(&format!("{folder}/uevent"), "DEVNAME=watchdog0\n");
            host.add_process(1, "systemd", "/dev/watchdog0");
            host.file("proc/1/cgroup", "0::/init.scope\n");
        },
        "0000:00:05.0",
        "process 1 (systemd) has /dev/watchdog0 open",
        "pass another device, since the host runs by systemd",
    ),
];

#[test]
fn every_use_is_told_alike_by_list_doctor_and_bind() {
    let all: Vec<&Used> = [STORAGE, NETWORK, FILES].into_iter().flatten().collect();
    let wrong: Vec<String> = all.into_iter().filter_map(|one| check(one).err()).collect();
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Says where `used` is not told, or not told right.
fn check(used: &Used) -> Result<(), String> {
    let Used {
        name,
        prepare,
        device,
        says,
        remedy,
    } = used;
    let host = host();
    host.add_driver("vfio-pci");
    prepare(&host);
    let before = host.picture();
    let wrong = |what: &str, text: &str| Err(format!("{name}: {what}: {text}"));

    let failure = match run(&host, &format!("host bind {device}")) {
        Err(failure) => failure.message,
        Ok((text, _)) => return wrong("it was taken", &text),
    };
    println!("{name}\n  {failure}");
    if !failure.starts_with(&format!("{device} is in use: {says}; {remedy}")) {
        return wrong("bind", &failure);
    }
    let list = one_line(&done(&host, &format!("host list {device}")));
    if !list.contains(&one_line(&says.replace(", nvme0n1", " in use: nvme0n1"))) {
        return wrong("list", &list);
    }
    let (doctor, code) = run(&host, &format!("host doctor -q {device}")).expect("findings");
    let doctor = one_line(&doctor);
    let (_, finding) = doctor
        .split_once("FAIL Can the host do without it?")
        .unwrap_or_default();
    if code != 1 || !finding.contains(&format!("{says} -> {remedy}")) {
        return wrong("doctor", &doctor);
    }
    match host.picture() == before {
        true => Ok(()),
        false => wrong("the host", "is not as it was"),
    }
}

#[test]
fn what_is_behind_a_controller_that_keeps_its_domain_is_not_advised_to_take_it() {
    let host = host();
    behind_vmd(&host);
    let failure = run(&host, "host bind 10000:e1:00.0").expect_err("it is not its own");
    assert!(
        failure.message.starts_with(
            "10000:e1:00.0 is behind 0000:00:0e.0 (vmd) and does DMA under its address, so it cannot be passed \
             while vmd has 0000:00:0e.0; turn VMD off in the firmware setup"
        ),
        "{}",
        failure.message
    );
    let (doctor, code) = run(&host, "host doctor 10000:e1:00.0").expect("findings");
    assert_eq!(code, 1);
    assert!(!doctor.contains("strait host bind"), "{doctor}");
    // What is behind it comes along by itself, and is in nobody's way.
    let failure = run(&host, "host bind --group 0000:00:0e.0").expect_err("the root file system");
    assert!(
        failure.message.starts_with("0000:00:0e.0 is in use"),
        "{}",
        failure.message
    );
}

#[test]
fn a_controller_with_an_idle_disk_behind_it_goes_alone() {
    let host = host();
    behind_vmd(&host);
    host.file("proc/self/mountinfo", "");
    let text = done(&host, "host bind 0000:00:0e.0");
    assert_eq!(text, "0000:00:0e.0 went from vmd to vfio-pci\n");
}

#[test]
fn what_cannot_be_asked_is_not_known_instead_of_free() {
    for (errno, remedy) in [
        (libc::EACCES, "run as root, on the host itself"),
        (libc::ENOENT, "look with lsblk /dev/nvme0n1"),
    ] {
        let host = host();
        host.claimed("nvme0n1", errno);
        let (doctor, _) = run(&host, "host doctor 02:00.0").expect("findings");
        let doctor = one_line(&doctor);
        let finding = "UNKNOWN Can the host do without it? it is not known whether something of the kernel keeps nvme0n1";
        assert!(
            doctor.contains(finding) && doctor.contains(&format!("-> {remedy}")),
            "{doctor}"
        );
        run(&host, "host bind 02:00.0").expect_err("perhaps in use");
        done(&host, "host bind --force 02:00.0");
    }
}

#[test]
fn a_pool_whose_disks_are_not_told_makes_all_disks_doubtful() {
    let host = host();
    mount(&host, "36 1 0:40 / / rw - zfs rpool/ROOT/debian rw");
    let failure = run(&host, "host bind 02:00.0").expect_err("perhaps in use");
    assert!(
        failure.message.contains(
            "0000:02:00.0 may be in use: it is not known whether it has a disk of the ZFS pool rpool; look with zpool status -P rpool"
        ),
        "{}",
        failure.message
    );
    done(&host, "host bind 01:00.0");
}

#[test]
fn after_one_silent_disk_the_others_are_not_waited_for() {
    let host = host();
    host.add_disk(NVME_PATH, "nvme0n2", "259:3");
    host.claimed("nvme0n1", libc::ETIMEDOUT);
    let text = one_line(&done(&host, "host list 02:00.0"));
    assert!(
        text.contains("keeps nvme0n2, since it does not open: another disk did not answer"),
        "{text}"
    );
}

#[test]
fn what_is_mounted_in_a_mount_goes_first() {
    let host = host();
    mount(&host, "36 1 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw");
    mount(&host, "37 36 259:1 /a /srv/a rw - ext4 /dev/nvme0n1p1 rw");
    let failure = run(&host, "host bind 02:00.0").expect_err("mounted");
    assert!(
        failure.message.contains("; umount /srv/a /srv, or"),
        "{}",
        failure.message
    );
}

#[test]
fn an_empty_drive_and_a_path_without_a_file_are_free() {
    let host = host();
    host.claimed("nvme0n1", libc::ENOMEDIUM);
    done(&host, "host bind --dry-run 02:00.0");
    host.claimed("nvme0n1", libc::ENOENT);
    host.file(&format!("{DISK}/hidden"), "1\n");
    done(&host, "host bind 02:00.0");
}

#[test]
fn what_a_sleeping_host_would_wake_up_from_is_told() {
    let host = host();
    host.file("sys/power/resume", "259:1\n");
    let text = done(&host, "host list 02:00.0");
    assert!(text.contains("the host would wake up from nvme0n1"), "{text}");
    done(&host, "host bind 02:00.0");
}

#[test]
fn force_does_not_take_what_the_kernel_could_not_give_back() {
    let host = host();
    nvidia(&host);
    host.add_process(812, "Xorg", "/dev/nvidia0");
    let failure = run(&host, "host bind --force 05:00.0").expect_err("it would hang");
    assert!(
        failure
            .message
            .ends_with("; end process 812 (Xorg) (--force would not help)"),
        "{}",
        failure.message
    );
    let host = self::host();
    behind_vmd(&host);
    run(&host, "host bind --force 00:0e.0").expect_err("the root file system");
}

#[test]
fn every_use_has_its_remedy_unless_one_is_endless() {
    let zfs = |at: &str| {
        let host = host();
        mount(&host, &format!("36 1 0:40 / {at} rw - zfs tank/x rw"));
        zfs_member(&host, "tank");
        run(&host, "host bind 02:00.0").expect_err("a pool").message
    };
    assert!(zfs("/srv").contains("; umount /srv; then zpool export tank, or take it"));
    assert!(zfs("/").ends_with("; the host runs from it, so pass another device (--force would not help)"));
}

#[test]
fn processes_of_another_card_are_no_matter() {
    let host = host();
    nvidia(&host);
    host.file(
        "proc/driver/nvidia/gpus/0000:05:00.0/information",
        "Model: \t X\nDevice Minor: \t 1\n",
    );
    host.add_process(812, "Xorg", "/dev/nvidia0");
    done(&host, "host bind 05:00.0");
}

#[test]
fn a_guest_with_the_devices_own_file_keeps_it() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file(
        &format!("sys/devices/pci0000:00/{NIC_PATH}/vfio-dev/vfio0/dev"),
        "511:0\n",
    );
    host.add_process(4711, "qemu-system-x86", "/dev/vfio/devices/vfio0");
    let list = done(&host, "host list 01:00.0");
    assert!(
        list.contains("in use: process 4711 (qemu-system-x86) has /dev/vfio/devices/vfio0 open"),
        "{list}"
    );
    let failure = run(&host, "host restore 01:00.0").expect_err("a guest has it");
    assert!(
        failure
            .message
            .starts_with("0000:01:00.0 is in use by process 4711 (qemu-system-x86)"),
        "{}",
        failure.message
    );
}

#[test]
fn a_guest_with_a_virtual_functions_own_file_keeps_all_of_them() {
    let host = host();
    done(&host, "host vf 01:00.0 1 --bind");
    host.file(
        "sys/devices/pci0000:00/0000:00:01.0/0000:01:10.0/vfio-dev/vfio0/dev",
        "511:0\n",
    );
    host.add_process(4711, "qemu-system-x86", "/dev/vfio/devices/vfio0");
    for words in ["host vf 01:00.0 0", "host vf 01:00.0 0 --force"] {
        let failure = run(&host, words).expect_err("a guest has it");
        assert!(
            failure
                .message
                .contains("in use by process 4711 (qemu-system-x86)"),
            "{}",
            failure.message
        );
    }
}

#[test]
fn many_processes_are_counted() {
    let host = host();
    bound(&host, "amdgpu");
    for pid in 100..120 {
        host.add_process(pid, "python3", "/dev/kfd");
    }
    let text = done(&host, "host list 05:00.0");
    assert_eq!(text.matches("has /dev/kfd open").count(), 4, "{text}");
    assert!(
        text.contains("in use: 16 more processes have its files open"),
        "{text}"
    );
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One more line of mountinfo.
fn mount(host: &FakeHost, line: &str) {
    let before = host.root().text("proc/self/mountinfo").unwrap_or_default();
    host.file("proc/self/mountinfo", &format!("{before}\n{line}\n"));
}

/// What udev has read from the disk's partition.
fn zfs_member(host: &FakeHost, pool: &str) {
    let text = format!("E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL={pool}\n");
    host.file("run/udev/data/b259:1", &text);
}

fn block(host: &FakeHost, name: &str) {
    let folder = format!("sys/devices/virtual/block/{name}");
    host.file(
        &format!("{folder}/uevent"),
        &format!("DEVNAME={name}\nDEVTYPE=disk\n"),
    );
    host.link(&format!("sys/class/block/{name}"), &folder);
}

/// Block device `name` on `below`.
fn made_of(host: &FakeHost, name: &str, below: &str) {
    block(host, name);
    host.link(
        &format!("sys/class/block/{below}/holders/{name}"),
        &format!("sys/devices/virtual/block/{name}"),
    );
}

fn volume(host: &FakeHost, node: &str, name: &str, uuid: &str, below: &str) {
    made_of(host, node, below);
    host.file(
        &format!("sys/devices/virtual/block/{node}/dm/name"),
        &format!("{name}\n"),
    );
    host.file(
        &format!("sys/devices/virtual/block/{node}/dm/uuid"),
        &format!("{uuid}\n"),
    );
}

/// A virtual interface.
fn interface(host: &FakeHost, name: &str, index: usize, event: &str) {
    let folder = format!("sys/devices/virtual/net/{name}");
    host.file(&format!("{folder}/type"), "1\n");
    host.file(&format!("{folder}/ifindex"), &format!("{index}\n"));
    host.file(&format!("{folder}/iflink"), &format!("{index}\n"));
    host.file(&format!("{folder}/uevent"), &format!("{event}INTERFACE={name}\n"));
    host.link(&format!("sys/class/net/{name}"), &folder);
}

/// Interface `upper` stands on `name`.
fn on(host: &FakeHost, name: &str, upper: &str, is_port: bool) {
    let target = format!("sys/devices/virtual/net/{upper}");
    host.link(&format!("sys/class/net/{name}/upper_{upper}"), &target);
    if is_port {
        host.link(&format!("sys/class/net/{name}/master"), &target);
    }
}

/// The graphics card has `driver`.
fn bound(host: &FakeHost, driver: &str) {
    let link = format!("sys/devices/pci0000:00/{GPU_PATH}/driver");
    std::fs::remove_file(host.path(&link)).expect("bound");
    host.add_driver(driver);
    host.link(&link, &format!("sys/bus/pci/drivers/{driver}"));
}

fn nvidia(host: &FakeHost) {
    bound(host, "nvidia");
}

/// Intel VMD in group 30 with everything behind it, and the root file system on a disk there.
fn behind_vmd(host: &FakeHost) {
    let functions = [
        (VMD_PATH, 0x01_0400, 0x467f, "vmd"),
        (
            "0000:00:0e.0/pci10000:e0/10000:e0:06.0",
            0x06_0400,
            0x464d,
            "pcieport",
        ),
        (BEHIND_VMD, 0x01_0802, 0xf1a8, "nvme"),
    ];
    for (path, class, device, driver) in functions {
        host.add(FakeFunction {
            path,
            class,
            ids: (0x8086, device),
            group: Some(30),
            driver: Some(driver),
        });
    }
    host.add_disk(BEHIND_VMD, "nvme9n1", "259:9");
    mount(host, "36 1 259:9 / / rw - ext4 /dev/nvme9n1p1 rw");
}

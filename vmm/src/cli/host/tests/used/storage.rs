//! Disks, and all that is made of them.

use super::*;

pub(super) const STORAGE: &[Used] = &[
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
        "a pool of LVM without a volume that is active",
        |host| volume(host, "dm-5", "my--vg-pool-tpool", "LVM-x-tpool", "nvme0n1p1"),
        NVME,
        "nvme0n1 is part of my--vg-pool-tpool of the active LVM volume group my-vg",
        "vgchange -an my-vg",
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

//! What disks are parts of: arrays, volumes, pools, exports.

use std::fmt;

/// What is made of disks, or stands on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// An array of md.
    Raid(String),
    /// A volume of the device mapper.
    Volume {
        /// Its name below /dev/mapper.
        name: String,
        /// What made it, the first word of its UUID.
        maker: String,
    },
    /// A volume that LVM keeps to itself, as the data of a pool or one side of a mirror.
    Inner {
        /// Its name below /dev/mapper.
        name: String,
        /// The volume group that it is in.
        group: String,
    },
    /// A device of bcache.
    Cache(String),
    /// A loop device, by its name.
    Loop(String),
    /// A btrfs, by where it is mounted.
    Btrfs(String),
    /// An imported ZFS pool.
    Pool(String),
    /// A mounted file system whose journal is on this block device.
    Journaled(String),
    /// A target of iSCSI, Fibre Channel or NVMe, by its folder.
    Export(String),
    /// Any other block device.
    Other(String),
}

impl Whole {
    /// What is at /dev/mapper/`name` with this UUID: LVM-, two identifiers in one word and, where LVM would not take its
    /// name, a suffix (`build_dm_uuid` of LVM).
    pub(super) fn mapped(name: String, uuid: &str) -> Self {
        let (maker, rest) = uuid.split_once('-').unwrap_or((uuid, ""));
        match maker == "LVM" && rest.contains('-') {
            true => Self::Inner {
                group: group_of(&name),
                name,
            },
            false => Self::Volume {
                name,
                maker: maker.to_owned(),
            },
        }
    }

    /// How it is taken down.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Raid(name) => format!("mdadm --stop /dev/{name}"),
            Self::Volume { name, maker } => match maker.as_str() {
                "LVM" => format!("lvchange -an /dev/mapper/{name}"),
                "CRYPT" => format!("cryptsetup close {name}"),
                "mpath" => format!("multipath -f {name}"),
                _ => format!("dmsetup remove {name}"),
            },
            Self::Inner { group, .. } => format!("vgchange -an {group}"),
            Self::Cache(name) => format!("echo 1 > /sys/block/{name}/bcache/stop"),
            Self::Loop(name) => format!("losetup -d /dev/{name}"),
            Self::Btrfs(_) => "unmount it in the mount namespace that has it (lsns -t mnt)".to_owned(),
            Self::Pool(name) => format!("zpool export {name}"),
            Self::Journaled(_) => "unmount that file system".to_owned(),
            Self::Export(folder) => format!("end the export in {folder}"),
            Self::Other(name) => format!("take down {name} (lsblk shows what it is)"),
        }
    }
}

/// `my-group` for `my--group-pool-tpool`: hyphens in a name are doubled.
fn group_of(name: &str) -> String {
    let group = name.replace("--", "\0");
    let group = group.split('-').next().unwrap_or_default();
    group.replace('\0', "-")
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raid(name) => write!(f, "the active RAID array {name}"),
            Self::Volume { name, maker } => match maker.as_str() {
                "LVM" => write!(f, "the active LVM volume {name}"),
                "CRYPT" => write!(f, "the open encrypted volume {name}"),
                "mpath" => write!(f, "the multipath device {name}"),
                _ => write!(f, "the mapped device {name}"),
            },
            Self::Inner { name, group } => write!(f, "{name} of the active LVM volume group {group}"),
            Self::Cache(name) => write!(f, "the cached device {name}"),
            Self::Loop(name) => write!(f, "the loop device {name}"),
            Self::Btrfs(id) => write!(f, "the mounted btrfs {id}"),
            Self::Pool(name) => write!(f, "the imported ZFS pool {name}"),
            Self::Journaled(journal) => write!(f, "a mounted file system, whose journal is on {journal}"),
            Self::Export(folder) => write!(f, "what the host exports by {folder}"),
            Self::Other(name) => write!(f, "the block device {name}"),
        }
    }
}

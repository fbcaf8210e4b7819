//! Mounted file systems and the block devices that each lies on: one, or all members of a btrfs or ZFS pool.

use std::collections::BTreeMap;

use super::blocks::{Block, Blocks};
use super::whole::Whole;
use crate::host::sysfs::{Root, names_in};

/// A file system, or a pool of several.
#[derive(Clone, Debug)]
pub(super) struct FileSystem {
    /// What it is where it has members, or keeps something on another device.
    pub(super) whole: Option<Whole>,
    /// Names of the block devices it is on.
    pub(super) devices: Vec<String>,
    /// Where it is mounted, as far as that is seen from here.
    pub(super) at: Vec<String>,
}

/// All that are mounted.
#[derive(Clone, Debug, Default)]
pub(super) struct FileSystems {
    pub(super) all: Vec<FileSystem>,
    /// ZFS pools that are imported, and whose disks are not told.
    pub(super) scattered_pools: Vec<String>,
}

/// A line of mountinfo.
struct Mount {
    numbers: String,
    at: String,
    kind: String,
    source: String,
    options: String,
}

impl FileSystems {
    pub(super) fn read(root: &Root, blocks: &Blocks) -> Self {
        let mut systems = Self::default();
        systems.read_btrfs(root);
        let mut pools: BTreeMap<String, Vec<String>> = imported_pools(root);
        // The mounts of this process, and of the first one: this one may be in a container.
        for process in ["self", "1"] {
            let text = root.text(format!("proc/{process}/mountinfo")).unwrap_or_default();
            for mount in text.lines().filter_map(Mount::read) {
                match mount.kind.as_str() {
                    "zfs" => add_once(pools.entry(mount.pool()).or_default(), mount.at),
                    _ => systems.add(root, blocks, mount),
                }
            }
        }
        systems.read_pools(root, blocks, pools);
        systems.read_journals(root, blocks);
        systems
    }

    fn add(&mut self, root: &Root, blocks: &Blocks, mount: Mount) {
        let devices = mount.devices(root, blocks);
        if devices.is_empty() {
            return;
        }
        let same = |one: &&mut FileSystem| one.devices.iter().any(|device| devices.contains(device));
        match self.all.iter_mut().find(same) {
            Some(known) => {
                add_once(&mut known.at, mount.at);
                devices
                    .into_iter()
                    .for_each(|device| add_once(&mut known.devices, device));
            }
            None => self.all.push(FileSystem {
                whole: None,
                devices,
                at: vec![mount.at],
            }),
        }
    }

    /// The kernel lists the members of each btrfs that is mounted, wherever that is.
    fn read_btrfs(&mut self, root: &Root) {
        for id in root.names("sys/fs/btrfs") {
            let devices = names_in(&root.path("sys/fs/btrfs").join(&id).join("devices"));
            if !devices.is_empty() {
                self.all.push(FileSystem {
                    whole: Some(Whole::Btrfs(id)),
                    devices,
                    at: Vec::new(),
                });
            }
        }
    }

    /// A pool's members carry its name, as udev has read it from them.
    fn read_pools(&mut self, root: &Root, blocks: &Blocks, pools: BTreeMap<String, Vec<String>>) {
        if pools.is_empty() {
            return;
        }
        let members: Vec<(String, String)> = blocks
            .all()
            .filter_map(|block| {
                let numbers = blocks.numbers_of(&block.name)?;
                let text = root.text(format!("run/udev/data/b{numbers}"))?;
                let value = |key: &str| {
                    text.lines()
                        .find_map(|line| line.strip_prefix(key))
                        .map(str::to_owned)
                };
                (value("E:ID_FS_TYPE=")? == "zfs_member")
                    .then_some((value("E:ID_FS_LABEL=")?, block.name.clone()))
            })
            .collect();
        for (name, at) in pools {
            let devices = members.iter().filter(|(pool, _)| *pool == name);
            let devices: Vec<String> = devices.map(|(_, device)| device.clone()).collect();
            if devices.is_empty() {
                self.scattered_pools.push(name.clone());
            }
            self.all.push(FileSystem {
                whole: Some(Whole::Pool(name)),
                devices,
                at,
            });
        }
    }

    /// jbd2 names what it writes to: `sda1-8` for the journal in inode 8 of a file system, `sdb1` for a
    /// device of its own (`jbd2_journal_init_dev`).
    fn read_journals(&mut self, root: &Root, blocks: &Blocks) {
        for device in root.names("proc/fs/jbd2") {
            if blocks.get(&device).is_some() {
                self.all.push(FileSystem {
                    whole: Some(Whole::Journaled(device.clone())),
                    devices: vec![device],
                    at: Vec::new(),
                });
            }
        }
    }
}

impl FileSystem {
    /// Whether it lies on one of `stack`.
    pub(super) fn is_on(&self, stack: &[&Block]) -> bool {
        self.devices
            .iter()
            .any(|device| stack.iter().any(|block| block.name == *device))
    }

    /// What is left of it when it is unmounted from where it is seen to be mounted.
    pub(super) fn standing(&self) -> Option<Whole> {
        match &self.whole {
            Some(Whole::Btrfs(_)) if !self.at.is_empty() => None,
            whole => whole.clone(),
        }
    }
}

impl Mount {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
    fn read(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(Self {
            numbers: (*left.get(2)?).to_owned(),
            at: unescaped(left.get(4)?),
            kind: (*right.first()?).to_owned(),
            source: unescaped(right.get(1)?),
            options: (*right.get(2).unwrap_or(&"")).to_owned(),
        })
    }

    /// By number, else by name: btrfs has numbers of its own, but says which device it was mounted from, and
    /// bcachefs several. A log on another device stands among the options.
    fn devices(&self, root: &Root, blocks: &Blocks) -> Vec<String> {
        let mut devices: Vec<String> = blocks
            .numbered(&self.numbers)
            .map(str::to_owned)
            .into_iter()
            .collect();
        let options = self
            .options
            .split(',')
            .filter_map(|option| Some(option.split_once('=')?.1));
        let named = self.source.split(':').chain(options);
        for device in named.filter_map(|path| blocks.name_of_file(root, path)) {
            add_once(&mut devices, device);
        }
        devices
    }

    /// `rpool` of `rpool/ROOT/debian`.
    fn pool(&self) -> String {
        self.source
            .split(['/', '@'])
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

/// The pools that the kernel has statistics of, mounted or not.
fn imported_pools(root: &Root) -> BTreeMap<String, Vec<String>> {
    let folder = root.path("proc/spl/kstat/zfs");
    let names = names_in(&folder).into_iter();
    names
        .filter(|name| folder.join(name).is_dir())
        .map(|name| (name, Vec::new()))
        .collect()
}

/// White space and backslashes in octal (`mangle`, fs/seq_file.c).
fn unescaped(text: &str) -> String {
    let text = text
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n");
    text.replace("\\134", "\\")
}

fn add_once(list: &mut Vec<String>, one: String) {
    if !list.contains(&one) {
        list.push(one);
    }
}

//! Block devices, and what stands on what: partitions, arrays, volumes, caches and loop devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use super::whole::Whole;
use crate::host::HostBdf;
use crate::host::process::Node;
use crate::host::sysfs::{Root, link_name, names_in, owners, read_text};

/// A block device, whole or a part.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) name: String,
    /// Its device file below /dev.
    pub(super) node: Node,
    /// The functions that it hangs on, where it is a whole disk: one for each of its controllers.
    pub(super) functions: Vec<HostBdf>,
    /// Those that keep the PCI domains of these.
    keepers: Vec<HostBdf>,
    pub(super) is_partition: bool,
    /// One of several paths to a disk, without a file of its own.
    pub(super) is_hidden: bool,
    /// Its partitions, and what was made of it.
    above: BTreeSet<String>,
}

/// All of the host's.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    blocks: BTreeMap<String, Block>,
    /// From `259:1` to the name.
    numbers: BTreeMap<String, String>,
}

impl Blocks {
    pub(super) fn read(root: &Root) -> Self {
        let mut blocks = Self::default();
        for numbers in root.names("sys/dev/block") {
            if let Ok(Some(name)) = link_name(&root.path("sys/dev/block").join(&numbers)) {
                blocks.numbers.insert(numbers, name);
            }
        }
        let names = root.names("sys/class/block");
        blocks.blocks = names
            .iter()
            .map(|name| (name.clone(), Block::read(root, name)))
            .collect();
        for name in names {
            blocks.connect(root, &name);
        }
        blocks
    }

    /// Enters `name` with what is below it, and what stands on it.
    fn connect(&mut self, root: &Root, name: &str) {
        let folder = root.path("sys/class/block").join(name);
        let mut below = names_in(&folder.join("slaves"));
        below.extend(disk_of_partition(&folder));
        let file = read_text(&folder.join("loop/backing_file")).ok();
        below.extend(file.and_then(|file| self.name_of_file(root, &file)));
        for below in below {
            if let Some(block) = self.blocks.get_mut(&below) {
                block.above.insert(name.to_owned());
            }
        }
        let holders = names_in(&folder.join("holders"));
        if let Some(block) = self.blocks.get_mut(name) {
            block.above.extend(holders);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Block> {
        self.blocks.values()
    }

    /// The whole disks that go away with function `bdf`.
    pub(super) fn disks(&self, bdf: HostBdf) -> impl Iterator<Item = &Block> {
        self.all()
            .filter(move |block| block.functions.contains(&bdf) || block.keepers.contains(&bdf))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Block> {
        self.blocks.get(name)
    }

    /// `disk`, its partitions, and everything made of them, from the bottom up.
    pub(super) fn stack<'a>(&'a self, disk: &'a Block) -> Vec<&'a Block> {
        let mut seen = BTreeSet::from([disk.name.as_str()]);
        let mut stack = vec![disk];
        let mut next = 0;
        while let Some(block) = stack.get(next) {
            let above = block.above.iter().filter(|name| seen.insert(name.as_str()));
            let above: Vec<&Block> = above.filter_map(|name| self.get(name)).collect();
            stack.extend(above);
            next += 1;
        }
        stack
    }

    /// The files of `block` and of everything made of it.
    pub(super) fn nodes(&self, block: &Block) -> Vec<Node> {
        self.stack(block).iter().map(|block| block.node.clone()).collect()
    }

    /// The device with numbers `259:1`.
    pub(super) fn numbered(&self, numbers: &str) -> Option<&str> {
        self.numbers.get(numbers).map(String::as_str)
    }

    /// The numbers of `name` as `259:1`.
    pub(super) fn numbers_of(&self, name: &str) -> Option<String> {
        let (major, minor) = self.get(name)?.node.numbers.or_else(|| {
            let (numbers, _) = self.numbers.iter().find(|(_, one)| *one == name)?;
            let (major, minor) = numbers.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })?;
        Some(format!("{major}:{minor}"))
    }

    /// `sda1` for `/dev/sda1`, `dm-0` for `/dev/mapper/root`.
    pub(super) fn name_of_file(&self, root: &Root, path: &str) -> Option<String> {
        let relative = path.strip_prefix("/dev/")?;
        let target = link_name(&root.path("dev").join(relative)).ok().flatten();
        let name = target.unwrap_or_else(|| relative.replace('/', "!"));
        self.blocks.contains_key(&name).then_some(name)
    }
}

impl Block {
    fn read(root: &Root, name: &str) -> Self {
        let folder = root.path("sys/class/block").join(name);
        let event = read_text(&folder.join("uevent")).unwrap_or_default();
        let file = || Node::named(name.replace('!', "/"));
        let is_partition = folder.join("partition").exists();
        let (functions, keepers) = match is_partition {
            true => (Vec::new(), Vec::new()),
            false => functions(&folder),
        };
        Self {
            name: name.to_owned(),
            node: Node {
                is_block: true,
                ..Node::from_event(&event).unwrap_or_else(file)
            },
            functions,
            keepers,
            is_partition,
            is_hidden: read_text(&folder.join("hidden")).is_ok_and(|text| text == "1"),
            above: BTreeSet::new(),
        }
    }

    /// What it is that was made of others; `None` for a disk or partition.
    pub(super) fn whole(&self, root: &Root) -> Option<Whole> {
        let name = self.name.clone();
        let folder = root.path("sys/class/block").join(&name);
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if self.is_partition || !self.functions.is_empty() {
            return None;
        }
        Some(match kind {
            "md" | "md_d" => Whole::Raid(name),
            "bcache" => Whole::Cache(name),
            "loop" => Whole::Loop(name),
            "dm-" => {
                let file = |file: &str| read_text(&folder.join("dm").join(file)).ok();
                let uuid = file("uuid").unwrap_or_default();
                Whole::mapped(file("name").unwrap_or(name), &uuid)
            }
            _ => Whole::Other(name),
        })
    }
}

/// The disk that the partition at `folder` is on.
fn disk_of_partition(folder: &Path) -> Option<String> {
    if !folder.join("partition").exists() {
        return None;
    }
    let path = fs::canonicalize(folder).ok()?;
    Some(path.parent()?.file_name()?.to_string_lossy().into_owned())
}

/// The functions that the disk at `folder` hangs on, and those that keep their domains.
fn functions(folder: &Path) -> (Vec<HostBdf>, Vec<HostBdf>) {
    let Ok(path) = fs::canonicalize(folder) else {
        return (Vec::new(), Vec::new());
    };
    let (mut functions, mut keepers) = (BTreeSet::new(), BTreeSet::new());
    for path in iter::once(path.clone()).chain(controllers(&path)) {
        let owners = owners(&path);
        functions.extend(owners.first());
        keepers.extend(owners.iter().skip(1));
    }
    (functions.into_iter().collect(), keepers.into_iter().collect())
}

/// An NVMe disk that may have several controllers is a child of its subsystem, beside links to them.
fn controllers(disk: &Path) -> Vec<PathBuf> {
    let Some(subsystem) = disk.parent().filter(|_| owners(disk).is_empty()) else {
        return Vec::new();
    };
    let links = names_in(subsystem)
        .into_iter()
        .filter(|link| link.starts_with("nvme"));
    links
        .filter_map(|link| fs::canonicalize(subsystem.join(link)).ok())
        .collect()
}

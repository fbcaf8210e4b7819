//! Disks, and the file systems and swap space on them.

use std::fs;

use super::Use;
use crate::host::HostBdf;
use crate::host::sysfs::{Root, functions_on, link_name, names_in};

/// File systems on volumes on RAID on partitions: more layers than this are a loop.
const MAX_LAYERS: u32 = 8;

/// A whole disk.
#[derive(Clone, Debug)]
struct Disk {
    name: String,
    /// More than one where a disk has several controllers.
    functions: Vec<HostBdf>,
}

/// All of the host's disks, and where they are used.
#[derive(Clone, Debug, Default)]
pub(super) struct Storage {
    disks: Vec<Disk>,
    /// Disk, and where a file system on it is mounted.
    mounted: Vec<(String, String)>,
    swap: Vec<String>,
}

impl Storage {
    pub(super) fn read(root: &Root) -> Self {
        let mut storage = Self::default();
        for name in root.names("sys/class/block") {
            let is_partition = root.path(format!("sys/class/block/{name}/partition")).exists();
            if !is_partition {
                let functions = functions(root, &name);
                storage.disks.push(Disk { name, functions });
            }
        }
        storage.disks.retain(|disk| !disk.functions.is_empty());
        storage.read_mounts(root);
        storage.read_swap(root);
        storage
    }

    /// The mounts of this process, and of the first one: this one may be in a container.
    fn read_mounts(&mut self, root: &Root) {
        for process in ["self", "1"] {
            let text = root.text(format!("proc/{process}/mountinfo")).unwrap_or_default();
            for line in text.lines() {
                let Some((at, device)) = mount(root, line) else {
                    continue;
                };
                for disk in disks_below(root, &device, 0) {
                    let entry = (disk, at.clone());
                    if !self.mounted.contains(&entry) {
                        self.mounted.push(entry);
                    }
                }
            }
        }
    }

    /// `/dev/nvme0n1p2 partition size used priority`; files lie on a mounted file system anyway.
    fn read_swap(&mut self, root: &Root) {
        let text = root.text("proc/swaps").unwrap_or_default();
        for line in text.lines().skip(1) {
            let path = line.split_whitespace().next().unwrap_or_default();
            if let Some(name) = block_name(root, path) {
                self.swap.extend(disks_below(root, &name, 0));
            }
        }
        self.swap.dedup();
    }

    pub(super) fn disks(&self, bdf: HostBdf) -> Vec<String> {
        self.of(bdf).map(|disk| disk.name.clone()).collect()
    }

    pub(super) fn function_of(&self, name: &str) -> Option<HostBdf> {
        let disk = self.disks.iter().find(|disk| disk.name == name)?;
        disk.functions.first().copied()
    }

    fn of(&self, bdf: HostBdf) -> impl Iterator<Item = &Disk> {
        self.disks
            .iter()
            .filter(move |disk| disk.functions.contains(&bdf))
    }

    pub(super) fn uses(&self, bdf: HostBdf) -> Vec<Use> {
        let mut uses = Vec::new();
        for disk in self.of(bdf) {
            let name = &disk.name;
            let mounted = self.mounted.iter().filter(|(mounted, _)| mounted == name);
            uses.extend(mounted.map(|(_, at)| Use::Mounted {
                disk: name.clone(),
                at: at.clone(),
            }));
            if self.swap.contains(name) {
                uses.push(Use::Swap { disk: name.clone() });
            }
        }
        uses
    }
}

/// The functions that disk `name` hangs on.
fn functions(root: &Root, name: &str) -> Vec<HostBdf> {
    let path = root.path("sys/class/block").join(name);
    if let Some(&function) = functions_on(&path).last() {
        return vec![function];
    }
    // An NVMe disk that may have several controllers is a child of its subsystem, beside links to them.
    let Some(subsystem) = fs::canonicalize(&path)
        .ok()
        .and_then(|path| path.parent().map(ToOwned::to_owned))
    else {
        return Vec::new();
    };
    let controllers = names_in(&subsystem)
        .into_iter()
        .filter(|link| link.starts_with("nvme"));
    let mut functions: Vec<HostBdf> = controllers
        .filter_map(|link| functions_on(&subsystem.join(link)).last().copied())
        .collect();
    functions.sort();
    functions.dedup();
    functions
}

/// Mount point and block device of a line `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn mount(root: &Root, line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    let numbers = fields.next()?;
    let at = fields.nth(1)?.replace("\\040", " ");
    let by_number = link_name(&root.path(format!("sys/dev/block/{numbers}")));
    // btrfs has numbers of its own, but says which device it was mounted from.
    let device = match by_number {
        Ok(Some(name)) => name,
        _ => block_name(root, right.split(' ').nth(1)?)?,
    };
    Some((at, device))
}

/// `sda1` of `/dev/sda1`, `dm-0` of `/dev/mapper/root`.
fn block_name(root: &Root, path: &str) -> Option<String> {
    let relative = path.strip_prefix("/dev/")?;
    let target = link_name(&root.path("dev").join(relative)).ok().flatten();
    let name = target.unwrap_or_else(|| relative.to_owned());
    let known = root.path("sys/class/block").join(&name).exists();
    (known && !name.contains('/')).then_some(name)
}

/// The whole disks that block device `name` lies on.
fn disks_below(root: &Root, name: &str, layer: u32) -> Vec<String> {
    let folder = root.path("sys/class/block").join(name);
    let below = names_in(&folder.join("slaves"));
    if !below.is_empty() && layer < MAX_LAYERS {
        let each = below.iter().map(|name| disks_below(root, name, layer + 1));
        return each.flatten().collect();
    }
    if !folder.join("partition").exists() {
        return vec![name.to_owned()];
    }
    let whole = fs::canonicalize(&folder)
        .ok()
        .and_then(|path| Some(path.parent()?.file_name()?.to_string_lossy().into_owned()));
    whole.into_iter().collect()
}

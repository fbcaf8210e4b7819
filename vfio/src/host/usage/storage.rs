//! Disks, and what the host has on them: looked for from each disk upwards.

use std::cell::Cell;
use std::io;

use super::blocks::{Block, Blocks};
use super::file_systems::{FileSystem, FileSystems};
use super::uses::Use;
use super::whole::Whole;
use crate::host::HostBdf;
use crate::host::kernel::Kernel;
use crate::host::process::OpenFiles;
use crate::host::sysfs::Root;

/// Folders of the kernel's storage targets, how deep in them each export has a folder, and the file in there
/// that names its device (Documentation/target, drivers/nvme/target/configfs.c).
const EXPORTS: [(&str, usize, &str); 2] = [
    ("sys/kernel/config/target/core", 2, "udev_path"),
    ("sys/kernel/config/nvmet/subsystems", 3, "device_path"),
];

/// Who is asked about disks.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) root: &'a Root,
    pub(super) kernel: &'a dyn Kernel,
    pub(super) files: &'a OpenFiles,
    pub(super) blocks: &'a Blocks,
    /// Whether a disk did not answer in time: the others are not waited for then.
    pub(super) is_silent: &'a Cell<bool>,
}

/// What is on the host's disks.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    systems: FileSystems,
    /// Block device, and its file as /proc/swaps names it.
    swaps: Vec<(String, String)>,
    /// Block device, and the folder of its export.
    exports: Vec<(String, String)>,
    /// Where the host would wake up from.
    resume: Option<String>,
}

impl Storage {
    pub(super) fn read(root: &Root, blocks: &Blocks) -> Self {
        let resume = root.text("sys/power/resume").unwrap_or_default();
        Self {
            systems: FileSystems::read(root, blocks),
            swaps: swaps(root, blocks),
            exports: exports(root, blocks),
            resume: blocks.numbered(&resume).map(str::to_owned),
        }
    }

    pub(super) fn uses(&self, asked: Asked<'_>, bdf: HostBdf) -> Vec<Use> {
        let mut uses: Vec<Use> = Vec::new();
        for disk in asked.blocks.disks(bdf) {
            let own = self.uses_of(asked, disk);
            let is_quiet = !own.iter().any(Use::is_blocking) && !asked.is_open(disk);
            uses.extend(own);
            uses.extend(is_quiet.then(|| claim(asked, disk)).flatten());
        }
        // A pool keeps its disks for itself (`vdev_disk_open` of ZFS), so that of the others the kernel has told.
        if uses.iter().any(Use::is_unknown) {
            uses.extend(self.systems.scattered_pools.iter().map(|pool| scattered(pool)));
        }
        uses
    }

    fn uses_of(&self, asked: Asked<'_>, disk: &Block) -> Vec<Use> {
        let stack = asked.blocks.stack(disk);
        let name = || disk.name.clone();
        let mut uses = Vec::new();
        let at = self.mounts(&stack);
        if !at.is_empty() {
            uses.push(Use::Mounted { disk: name(), at });
        }
        let swaps = self.swaps.iter().filter(|(device, _)| is_in(&stack, device));
        uses.extend(swaps.map(|(_, file)| Use::Swap {
            disk: name(),
            file: file.clone(),
        }));
        let wholes = self.wholes(asked, &stack);
        let others = wholes.len().saturating_sub(1);
        uses.extend(wholes.into_iter().next().map(|whole| Use::Part {
            disk: name(),
            whole,
            others,
        }));
        if self.resume.as_ref().is_some_and(|device| is_in(&stack, device)) {
            uses.push(Use::Resume { disk: name() });
        }
        uses
    }

    /// Where something in `stack` is mounted, the root first: it settles the matter.
    fn mounts(&self, stack: &[&Block]) -> Vec<String> {
        let systems = self.systems.all.iter().filter(|one| one.is_on(stack));
        let mut at: Vec<String> = systems.flat_map(|one| one.at.iter().cloned()).collect();
        at.sort();
        at.dedup();
        at
    }

    /// What `stack` is a part of, beside file systems that are mounted.
    fn wholes(&self, asked: Asked<'_>, stack: &[&Block]) -> Vec<Whole> {
        let systems = self.systems.all.iter().filter(|one| one.is_on(stack));
        let mut wholes: Vec<Whole> = systems.filter_map(FileSystem::standing).collect();
        let exports = self.exports.iter().filter(|(device, _)| is_in(stack, device));
        wholes.extend(exports.map(|(_, folder)| Whole::Export(folder.clone())));
        wholes.extend(stack.iter().filter_map(|block| self.idle(asked, block)));
        wholes
    }

    /// What `block` is, if it was made of disks and nothing shows what for.
    fn idle(&self, asked: Asked<'_>, block: &Block) -> Option<Whole> {
        let whole = block.whole(asked.root)?;
        let stack = asked.blocks.stack(block);
        let is_used = self.systems.all.iter().any(|system| system.is_on(&stack))
            || self
                .swaps
                .iter()
                .chain(&self.exports)
                .any(|(device, _)| is_in(&stack, device))
            || asked.is_open(block)
            || stack
                .iter()
                .skip(1)
                .any(|block| block.whole(asked.root).is_some());
        (!is_used).then_some(whole)
    }
}

impl Asked<'_> {
    /// Whether a process has `block`, or something made of it, open.
    fn is_open(&self, block: &Block) -> bool {
        !self.files.holders(&self.blocks.nodes(block)).is_empty()
    }
}

fn is_in(stack: &[&Block], name: &str) -> bool {
    stack.iter().any(|block| block.name == name)
}

/// What the kernel says when `disk` is asked for as a whole and alone: every mount in any namespace, array,
/// pool and target has it or a part of it claimed (`bd_prepare_to_claim`, block/bdev.c).
fn claim(asked: Asked<'_>, disk: &Block) -> Option<Use> {
    if disk.is_hidden {
        return None;
    }
    let name = disk.name.clone();
    let file = asked.root.path("dev").join(&disk.node.name);
    let claimed = match asked.is_silent.get() {
        true => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "another disk did not answer in time",
        )),
        false => asked.kernel.claim(&file),
    };
    match claimed {
        Ok(()) => None,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Some(Use::Claimed { disk: name }),
        // Nothing is in the drive.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEDIUM | libc::ENXIO)) => None,
        Err(error) => {
            asked
                .is_silent
                .set(asked.is_silent.get() || error.kind() == io::ErrorKind::TimedOut);
            Some(not_asked(&name, &error))
        }
    }
}

fn not_asked(disk: &str, error: &io::Error) -> Use {
    Use::Unknown {
        what: format!("whether something of the kernel keeps {disk}, since it does not open: {error}"),
        remedy: match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => "run as root, on the host itself".to_owned(),
            _ => format!("look with lsblk /dev/{disk}"),
        },
    }
}

fn scattered(pool: &str) -> Use {
    Use::Unknown {
        what: format!("whether it has a disk of the ZFS pool {pool}"),
        remedy: format!("look with zpool status -P {pool}"),
    }
}

/// `/dev/nvme0n1p2 partition size used priority`; files lie on a mounted file system anyway.
fn swaps(root: &Root, blocks: &Blocks) -> Vec<(String, String)> {
    let text = root.text("proc/swaps").unwrap_or_default();
    let paths = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    paths
        .filter_map(|path| Some((blocks.name_of_file(root, path)?, path.to_owned())))
        .collect()
}

fn exports(root: &Root, blocks: &Blocks) -> Vec<(String, String)> {
    let mut exports = Vec::new();
    for (folder, depth, file) in EXPORTS {
        let mut folders = vec![folder.to_owned()];
        for _ in 0..depth {
            let inner = folders.iter().flat_map(|folder| {
                root.names(folder)
                    .into_iter()
                    .map(move |name| format!("{folder}/{name}"))
            });
            folders = inner.collect();
        }
        for folder in folders {
            if root.text(format!("{folder}/enable")).as_deref() == Some("0") {
                continue;
            }
            let path = root.text(format!("{folder}/{file}")).unwrap_or_default();
            exports.extend(
                blocks
                    .name_of_file(root, &path)
                    .map(|name| (name, format!("/{folder}"))),
            );
        }
    }
    exports
}

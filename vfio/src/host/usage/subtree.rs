//! What a function's drivers have made below its folder in sysfs, and in the PCI domain that it keeps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::HostBdf;
use crate::host::kernel::{Kernel, is_pending};
use crate::host::process::{Node, OpenFiles, vfio_nodes};
use crate::host::sysfs::{Root, function_named, link_name};

/// Most folders looked into for one function: ten thousand disks on one adapter are about as many.
const MAX_FOLDERS: usize = 400_000;
/// Hubs on hubs behind a controller in a domain of its own: deeper than this is a loop.
const MAX_DEPTH: usize = 40;
/// A driver that waits for as long as a file of the card is open, its own or one of nvidia-drm (`nv_pci_remove`:
/// "Attempting to remove device ... with non-zero usage count").
const NVIDIA: &str = "nvidia";
/// Folders without device files, some of them large: a NIC has one for each of its queues.
const BARREN: [&str; 7] = [
    "power",
    "msi_irqs",
    "statistics",
    "queues",
    "mq",
    "integrity",
    "wakeup",
];

/// The device files of a function, and what else its folders tell.
#[derive(Debug, Default)]
pub(super) struct Subtree {
    /// Device files below /dev.
    pub(super) nodes: Vec<Node>,
    /// A folder for network interfaces without one: it is in another network namespace.
    pub(super) interface_elsewhere: bool,
    /// Its driver lets go of it only once none of the files is open, and waits for that without end.
    pub(super) driver_waits: bool,
    /// The kernel works on some of it and does not tell.
    pub(super) is_late: bool,
    /// There is more than was looked at.
    pub(super) is_cut: bool,
}

impl Subtree {
    pub(super) fn read(root: &Root, kernel: &dyn Kernel, bdf: HostBdf, files: &OpenFiles) -> Self {
        let driver = link_name(&root.function(bdf).join("driver")).ok().flatten();
        let driver = driver.as_deref().unwrap_or_default();
        let mut subtree = Self {
            nodes: without_folder(root, bdf, driver, files),
            driver_waits: driver == NVIDIA,
            ..Self::default()
        };
        let mut folders = vec![(root.function(bdf), 0, false)];
        let (mut looked_at, mut events) = (0, Vec::new());
        while let Some((folder, depth, in_domain)) = folders.pop() {
            looked_at += 1;
            if looked_at > MAX_FOLDERS || depth > MAX_DEPTH {
                subtree.is_cut = true;
                break;
            }
            for inner in subtree.look_into(&folder, &mut events) {
                let name = inner
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                let in_domain = in_domain || is_domain(name);
                // Behind a bridge are functions of their own; a domain goes with who keeps it.
                if !BARREN.contains(&name) && (in_domain || function_named(name).is_none()) {
                    folders.push((inner, depth + 1, in_domain));
                }
            }
        }
        subtree.add(kernel.read_each(&events));
        subtree
    }

    /// Adds the files that `events` tell.
    fn add(&mut self, events: Vec<io::Result<String>>) {
        for event in events {
            self.is_late |= event.as_ref().is_err_and(is_pending);
            self.nodes.extend(Node::from_event(&event.unwrap_or_default()));
        }
    }

    /// Notes what `folder` tells and, in `events`, what is to be read there, and returns the folders in it.
    fn look_into(&mut self, folder: &Path, events: &mut Vec<PathBuf>) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let (mut inner, mut has_numbers, mut has_group) = (Vec::new(), false, false);
        for entry in entries.flatten() {
            let name = entry.file_name();
            // Its `uevent` tells the file.
            has_numbers |= name == "dev";
            // Of a function, or of a mediated device in it.
            has_group |= name == "iommu_group" || name == "vfio-dev";
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                inner.push(entry.path());
            }
        }
        if has_numbers {
            events.push(folder.join("uevent"));
        }
        if has_group {
            self.nodes.extend(vfio_nodes(folder));
        }
        self.interface_elsewhere |= inner.is_empty() && folder.file_name().is_some_and(|name| name == "net");
        inner
    }
}

/// `pci10000:e0`, the root bus of a domain.
fn is_domain(name: &str) -> bool {
    name.strip_prefix("pci").is_some_and(|rest| rest.contains(':'))
}

/// Files that their drivers make without a folder in sysfs.
fn without_folder(root: &Root, bdf: HostBdf, driver: &str, files: &OpenFiles) -> Vec<Node> {
    match driver {
        NVIDIA => nvidia(root, bdf, files),
        // One for all cards.
        "amdgpu" => vec![Node::named("kfd")],
        _ => Vec::new(),
    }
}

/// `/dev/nvidia<minor>`; where the driver does not tell the minor it may be any.
fn nvidia(root: &Root, bdf: HostBdf, files: &OpenFiles) -> Vec<Node> {
    let text = root.text(format!("proc/driver/nvidia/gpus/{bdf}/information"));
    let minor = text.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
        line.trim().parse::<u32>().ok()
    });
    match minor {
        Some(minor) => vec![Node::named(format!("nvidia{minor}"))],
        None => files.names(is_nvidia),
    }
}

/// Whether `name` is the file of one of NVIDIA's cards.
fn is_nvidia(name: &str) -> bool {
    name.strip_prefix("nvidia")
        .is_some_and(|minor| minor.parse::<u32>().is_ok())
}

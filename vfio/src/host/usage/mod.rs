//! What the host does with a device right now: what would break if the device went away.
//!
//! Use is looked for from the device upwards: its whole folder in sysfs, with the PCI domain that it may keep;
//! every disk and interface in there; what is made of those; and who has a file of any of them open. What
//! cannot be found out is a use of its own kind, [`Use::Unknown`].

mod blocks;
mod console;
mod file_systems;
mod network;
mod storage;
mod subtree;
mod uses;
mod whole;

use std::cell::{Cell, LazyCell};

use super::HostBdf;
use super::kernel::Kernel;
use super::process::{Holder, Node, OpenFiles, Process, has_vfio_member, vfio_nodes};
use super::sysfs::Root;
use super::virtual_links::count_virtual_functions;

pub(crate) use console::boot_screen;
pub use uses::Use;
pub(crate) use uses::state;
pub use whole::Whole;

use blocks::Blocks;
use console::Consoles;
use network::Network;
use storage::{Asked, Storage};
use subtree::Subtree;

/// More processes than this are counted, not named.
const MAX_PROCESSES: usize = 4;

/// Interfaces, disks, consoles and open files of the whole host, each read once.
#[derive(Clone, Debug)]
pub struct Usage {
    names: Names,
    storage: Storage,
    consoles: Consoles,
    files: OpenFiles,
    is_silent: Cell<bool>,
}

/// What is read only once somebody asks.
pub(crate) type LateUsage<'a> = LazyCell<Usage, Box<dyn FnOnce() -> Usage + 'a>>;

/// Which function each network interface and disk is on, as sysfs tells it: no disk is opened.
#[derive(Clone, Debug)]
pub struct Names {
    network: Network,
    blocks: Blocks,
}

impl Names {
    /// Reads sysfs once for all functions.
    pub fn read(root: &Root) -> Self {
        Self {
            network: Network::read(root),
            blocks: Blocks::read(root),
        }
    }

    /// Network interfaces of function `bdf` itself.
    pub fn interfaces(&self, bdf: HostBdf) -> Vec<String> {
        self.network.interfaces(bdf)
    }

    /// Disks of function `bdf` itself.
    pub fn disks(&self, bdf: HostBdf) -> Vec<String> {
        let own = self.blocks.all().filter(|disk| disk.functions.contains(&bdf));
        own.map(|disk| disk.name.clone()).collect()
    }

    /// The function with network interface or disk `name`.
    pub(crate) fn function_with(&self, name: &str) -> Option<HostBdf> {
        let disk = || self.blocks.get(name)?.functions.first().copied();
        self.network.function_of(name).or_else(disk)
    }
}

impl Usage {
    /// Reads all of it, once.
    pub fn read(root: &Root) -> Self {
        let names = Names::read(root);
        Self {
            storage: Storage::read(root, &names.blocks),
            names,
            consoles: Consoles::read(root),
            files: OpenFiles::read(root),
            is_silent: Cell::default(),
        }
    }

    /// Reads it all once it is asked for.
    pub(crate) fn late(root: &Root) -> LateUsage<'_> {
        LazyCell::new(Box::new(|| Self::read(root)))
    }

    /// Who has which device file open.
    pub(crate) fn files(&self) -> &OpenFiles {
        &self.files
    }

    /// Network interfaces of function `bdf` itself.
    pub fn interfaces(&self, bdf: HostBdf) -> Vec<String> {
        self.names.interfaces(bdf)
    }

    /// Disks of function `bdf` itself.
    pub fn disks(&self, bdf: HostBdf) -> Vec<String> {
        self.names.disks(bdf)
    }

    /// Every use of function `bdf` and of what is behind it, the gravest kinds first.
    pub fn of(&self, root: &Root, kernel: &dyn Kernel, bdf: HostBdf) -> Vec<Use> {
        let asked = Asked {
            root,
            kernel,
            files: &self.files,
            blocks: &self.names.blocks,
            is_silent: &self.is_silent,
        };
        let subtree = Subtree::read(root, kernel, bdf, &self.files);
        let mut uses = self.storage.uses(asked, bdf);
        uses.extend(self.names.network.uses(&self.files, bdf));
        uses.extend(subtree.interface_elsewhere.then_some(Use::InterfaceElsewhere));
        uses.extend(self.consoles.uses(bdf));
        uses.extend(virtual_functions(root, bdf));
        uses.extend(self.processes(root, &subtree, bdf));
        // Where something is known to use it, a doubt adds nothing.
        if uses.iter().any(|one| one.is_blocking() && !one.is_unknown()) {
            uses.retain(|one| !one.is_unknown());
        }
        uses
    }

    /// The process that has VFIO's file of `bdf` or of its group open: a guest, with whatever VMM.
    pub(crate) fn guest(&self, root: &Root, bdf: HostBdf) -> Option<Process> {
        let nodes = vfio_nodes(&root.function(bdf));
        self.files
            .holders(&nodes)
            .into_iter()
            .next()
            .map(|one| one.process)
    }

    fn processes(&self, root: &Root, subtree: &Subtree, bdf: HostBdf) -> Vec<Use> {
        let mut nodes = subtree.nodes.clone();
        let disks = self.names.blocks.disks(bdf);
        nodes.extend(disks.flat_map(|disk| self.names.blocks.nodes(disk)));
        let holders = self.files.holders(&nodes);
        let more = holders.len().saturating_sub(MAX_PROCESSES);
        let use_of = |holder| by_process(holder, subtree.driver_waits);
        let mut uses: Vec<Use> = holders.into_iter().map(use_of).collect();
        uses.sort_by_key(|one| !one.outlasts_force());
        uses.truncate(MAX_PROCESSES);
        if more > 0 {
            uses.push(Use::OtherProcesses { count: more });
        }
        // A file that is not there is nobody's.
        let is_there = |node: &Node| !node.is_vfio() || has_vfio_member(&root.function(bdf));
        if self.files.some_hidden && nodes.iter().any(is_there) {
            uses.push(unseen(
                "whether a process that is hidden from here has a file of it open",
                "run as root, on the host itself",
            ));
        }
        if subtree.is_late {
            uses.push(Use::in_transit());
        }
        if subtree.is_cut {
            uses.push(unseen(
                "whether all of it is free, its folder in /sys is too large",
                "look there",
            ));
        }
        uses
    }
}

/// Who has a device's files open, as far as this process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// At least this one.
    By(Process),
    /// Nobody that can be seen, but not all can.
    Unseen,
    /// Nobody has it open.
    Free,
}

/// Who has any file of `bdf`'s driver open.
pub(crate) fn held(root: &Root, kernel: &dyn Kernel, files: &OpenFiles, bdf: HostBdf) -> Held {
    let Subtree { nodes, is_late, .. } = Subtree::read(root, kernel, bdf, files);
    match files.holders(&nodes).into_iter().next() {
        Some(holder) => Held::By(holder.process),
        None if is_late || (files.some_hidden && !nodes.is_empty()) => Held::Unseen,
        None => Held::Free,
    }
}

/// VFIO's files of the group are another driver's.
fn by_process(holder: Holder, driver_waits: bool) -> Use {
    let Holder { process, file } = holder;
    let hangs = driver_waits && !file.starts_with("/dev/vfio/");
    Use::Process { process, file, hangs }
}

fn unseen(what: &str, remedy: &str) -> Use {
    Use::Unknown {
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn virtual_functions(root: &Root, bdf: HostBdf) -> Option<Use> {
    let count = count_virtual_functions(root, bdf);
    (count > 0).then_some(Use::VirtualFunctions { count })
}

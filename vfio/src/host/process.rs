//! What procfs says of processes: who has a device file open, and what this one may lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::drivers::is_vfio_driver;
use super::sysfs::{Root, names_in};

/// `CAP_IPC_LOCK` (linux/capability.h): no limit on locked memory.
const CAP_IPC_LOCK: u32 = 14;

/// What `/proc/<pid>/ns/pid` leads to in the namespace that all processes are seen from: `PROC_PID_INIT_INO`
/// (include/linux/proc_ns.h).
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// A file below /dev, as its driver calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its path below /dev.
    pub(crate) name: String,
    /// Whether it is a block device.
    pub(crate) is_block: bool,
    /// Major and minor, where they are known: containers call files as they like.
    pub(crate) numbers: Option<(u32, u32)>,
}

impl Node {
    /// One that is known by its name alone.
    pub(crate) fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            is_block: false,
            numbers: None,
        }
    }

    /// One of VFIO's own files.
    pub(crate) fn is_vfio(&self) -> bool {
        self.name.starts_with("vfio/")
    }

    /// From the text of `uevent`, `None` for what has no file.
    pub(crate) fn from_event(event: &str) -> Option<Self> {
        let value = |key: &str| event.lines().find_map(|line| line.strip_prefix(key));
        let number = |key| value(key)?.parse().ok();
        Some(Self {
            name: value("DEVNAME=")?.trim_start_matches("/dev/").to_owned(),
            is_block: matches!(value("DEVTYPE="), Some("disk" | "partition")),
            numbers: number("MAJOR=").zip(number("MINOR=")),
        })
    }
}

/// A process that keeps a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Number of the process.
    pub pid: u32,
    /// Name of the process, as in comm.
    pub name: String,
    /// What `systemctl stop` ends it with, if it is a service that would only be started again.
    pub service: Option<String>,
}

impl Process {
    /// How it lets go of what it has.
    pub fn remedy(&self) -> String {
        match (self.pid, &self.service) {
            (1, _) => format!("pass another device, since the host runs by {}", self.name),
            (_, Some(service)) => format!("systemctl stop {service}"),
            (pid, None) => format!("end process {pid} ({})", self.name),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// A process that has a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) process: Process,
    /// The file, from /dev on.
    pub(crate) file: String,
}

/// A descriptor on a device file.
#[derive(Clone, Debug)]
struct Opened {
    pid: u32,
    node: Node,
}

/// All open device files, read in one pass over `/proc/*/fd`.
#[derive(Clone, Debug)]
pub(crate) struct OpenFiles {
    root: Root,
    opened: Vec<Opened>,
    /// Numbers and names of what is open.
    numbers: BTreeSet<(u32, u32)>,
    names: BTreeSet<String>,
    /// Process and inode of each socket.
    sockets: Vec<(u32, String)>,
    /// Whether there are processes that cannot be looked into, or not even be seen.
    pub(crate) some_hidden: bool,
}

impl OpenFiles {
    pub(crate) fn read(root: &Root) -> Self {
        let mut files = Self {
            root: root.clone(),
            opened: Vec::new(),
            numbers: BTreeSet::new(),
            names: BTreeSet::new(),
            sockets: Vec::new(),
            some_hidden: !sees_all_processes(root),
        };
        for pid in root.names("proc").iter().filter_map(|name| name.parse().ok()) {
            match fs::read_dir(root.path(format!("proc/{pid}/fd"))) {
                Ok(descriptors) => files.add(pid, descriptors.flatten().map(|one| one.path())),
                Err(error) => files.some_hidden |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        files
    }

    fn add(&mut self, pid: u32, descriptors: impl Iterator<Item = impl AsRef<Path>>) {
        let mut seen = BTreeSet::new();
        for path in descriptors {
            let target = match fs::read_link(&path) {
                Ok(target) => target,
                // Some processes show how many files they have, and not which.
                Err(error) => {
                    self.some_hidden |= error.kind() == io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            let Some(target) = target.to_str() else { continue };
            if let Some(inode) = target.strip_prefix("socket:[") {
                self.sockets.push((pid, inode.trim_end_matches(']').to_owned()));
            } else if let Some(node) = node_at(path.as_ref(), target)
                && seen.insert(node.name.clone())
            {
                self.numbers.extend(node.numbers);
                self.names.insert(node.name.clone());
                self.opened.push(Opened { pid, node });
            }
        }
    }

    /// The processes that have one of `nodes` open, each once with the first of these.
    pub(crate) fn holders(&self, nodes: &[Node]) -> Vec<Holder> {
        let is_open = |node: &&Node| {
            self.names.contains(&node.name) || node.numbers.is_some_and(|one| self.numbers.contains(&one))
        };
        let nodes: Vec<&Node> = nodes.iter().filter(is_open).collect();
        let mut first: BTreeMap<u32, usize> = BTreeMap::new();
        for Opened { pid, node } in self.opened.iter().filter(|_| !nodes.is_empty()) {
            if let Some(place) = nodes.iter().position(|one| is_same(one, node)) {
                let known = first.entry(*pid).or_insert(place);
                *known = place.min(*known);
            }
        }
        let holder = |(pid, place): (u32, usize)| Holder {
            process: self.process(pid),
            file: format!("/dev/{}", nodes[place].name),
        };
        first.into_iter().map(holder).collect()
    }

    /// The process with socket `inode`.
    pub(crate) fn holder_of_socket(&self, inode: &str) -> Option<Process> {
        let (pid, _) = self.sockets.iter().find(|(_, one)| one == inode)?;
        Some(self.process(*pid))
    }

    /// The names of open files that `wanted` knows.
    pub(crate) fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<Node> {
        let names = self.names.iter().filter(|name| wanted(name));
        names.map(Node::named).collect()
    }

    /// The last unit in `0::/system.slice/ssh.service`, or below `user@1000.service` one of that user.
    fn service_of(&self, pid: u32) -> Option<String> {
        let groups = self.root.text(format!("proc/{pid}/cgroup"))?;
        let is_systemds = |line: &&str| line.starts_with("0::") || line.contains(":name=systemd:");
        let path = groups.lines().find(is_systemds)?.rsplit(':').next()?;
        let unit = path
            .rsplit('/')
            .next()
            .filter(|unit| unit.ends_with(".service"))?;
        let user = path
            .split('/')
            .find_map(|part| part.strip_prefix("user@")?.strip_suffix(".service"));
        match user {
            Some(user) if unit != format!("user@{user}.service") => Some(format!("--user -M {user}@ {unit}")),
            Some(_) => None,
            None => Some(unit.to_owned()),
        }
    }

    fn process(&self, pid: u32) -> Process {
        Process {
            pid,
            name: self.root.text(format!("proc/{pid}/comm")).unwrap_or_default(),
            service: self.service_of(pid),
        }
    }
}

/// Whether /proc lists every process of the host: not in a container with numbers of its own, nor where the option
/// `hidepid` hides the first one, which is root's. Kernels without such namespaces have no file for them.
fn sees_all_processes(root: &Root) -> bool {
    let namespace = fs::read_link(root.path("proc/self/ns/pid"));
    let is_initial = namespace.map_or_else(
        |error| error.kind() == io::ErrorKind::NotFound,
        |name| name.as_os_str() == INITIAL_NAMESPACE,
    );
    is_initial && root.path("proc/1").exists()
}

/// By the numbers if both sides know them, else by the name.
fn is_same(device: &Node, open: &Node) -> bool {
    match (device.numbers, open.numbers) {
        (Some(device_numbers), Some(numbers)) => {
            device_numbers == numbers && device.is_block == open.is_block
        }
        _ => device.name == open.name,
    }
}

/// The device file that descriptor `path` leads to: a chroot has a /dev of its own, and what was replaced
/// there is marked as deleted.
fn node_at(path: &Path, target: &str) -> Option<Node> {
    const EVERYBODYS: [&str; 5] = ["null", "zero", "urandom", "random", "ptmx"];
    let (_, name) = target.rsplit_once("/dev/")?;
    let name = name.trim_end_matches(" (deleted)");
    if EVERYBODYS.contains(&name) || name.starts_with("pts/") {
        return None;
    }
    // Nothing directly below /dev is on a server that may have gone silent.
    let data = target
        .starts_with("/dev/")
        .then(|| fs::metadata(path).ok())
        .flatten();
    let data = data.filter(|data| data.file_type().is_char_device() || data.file_type().is_block_device());
    Some(Node {
        name: name.to_owned(),
        is_block: data
            .as_ref()
            .is_some_and(|data| data.file_type().is_block_device()),
        numbers: data.map(|data| (libc::major(data.rdev()), libc::minor(data.rdev()))),
    })
}

/// VFIO's files for what is in `folder`: those of its group, and of the device alone.
pub(crate) fn vfio_nodes(folder: &Path) -> Vec<Node> {
    let group = fs::read_link(folder.join("iommu_group")).ok();
    let group = group.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let names = group
        .iter()
        .flat_map(|group| [format!("vfio/{group}"), format!("vfio/noiommu-{group}")]);
    let devices = names_in(&folder.join("vfio-dev"))
        .into_iter()
        .map(|name| format!("vfio/devices/{name}"));
    names.chain(devices).map(Node::named).collect()
}

/// Whether the files of VFIO for the group of what is in `folder` are there: while any of its members is on a driver
/// of VFIO (`vfio_group_find_or_alloc`, drivers/vfio/group.c).
pub(crate) fn has_vfio_member(folder: &Path) -> bool {
    let members = folder.join("iommu_group/devices");
    names_in(&members).iter().any(|member| {
        let member = members.join(member);
        let driver = fs::read_link(member.join("driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        driver.is_some_and(|driver| is_vfio_driver(&driver)) || member.join("vfio-dev").exists()
    })
}

/// How many bytes this process may lock, `None` for no limit.
pub(crate) fn lockable_bytes(root: &Root) -> Option<u64> {
    let status = fs::read_to_string(root.path("proc/self/status")).ok()?;
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    if u64::from_str_radix(capabilities.trim(), 16).ok()? >> CAP_IPC_LOCK & 1 == 1 {
        return None;
    }
    let limits = fs::read_to_string(root.path("proc/self/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    // `unlimited` is no number.
    line.split_whitespace().next()?.parse().ok()
}

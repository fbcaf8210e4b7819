//! What procfs says of processes: who holds a file, and what this one may lock.

use std::fs;
use std::path::Path;

use super::sysfs::Root;

/// `CAP_IPC_LOCK` (linux/capability.h): no limit on locked memory.
const CAP_IPC_LOCK: u32 = 14;

/// A process that has a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// A process that holds `file` open, if procfs lets us see it.
pub(crate) fn holder(root: &Root, file: &Path) -> Option<Holder> {
    let processes = fs::read_dir(root.path("proc")).ok()?;
    processes.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let files = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = files
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == file));
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| Holder {
            pid,
            name: name.trim().to_owned(),
        })
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

//! How much memory the lab machine gets of the build machine's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit};

/// A 3 GiB guest is pinned in the lab host, beside everything else.
const MOST_MIB: u64 = 8192;

/// A guest of 1 GiB with a guest of its own. What needs more is skipped, and says why.
const LEAST_MIB: u64 = 2048;

/// QEMU itself, of which translated code has 1 GiB.
const QEMU_MIB: u64 = 1024;

/// Room for memory, and what draws its border.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    mib: u64,
    border: &'static str,
}

/// As much as there is room for, in MiB, up to what every scenario needs.
pub(crate) fn for_lab_machine() -> Result<u64> {
    let read = |path| fs::read_to_string(path).with_context(|| format!("Cannot read {path}"));
    let available = available(&read("/proc/meminfo")?).context("/proc/meminfo names no MemAvailable")?;
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let rooms = [
        Some(available),
        in_control_groups(&groups, Path::new("/sys/fs/cgroup")),
        in_address_space(),
    ];
    let narrowest = rooms.into_iter().flatten().min_by_key(|room| room.mib);
    lab_machine(&narrowest.context("No room for memory is known")?)
}

fn lab_machine(room: &Room) -> Result<u64> {
    let needed = LEAST_MIB + QEMU_MIB;
    let Room { mib, border } = room;
    ensure!(
        *mib >= needed,
        "The lab needs {needed} MiB of memory and {border} leaves it {mib} MiB: end other programs, or raise the limit"
    );
    Ok((mib - QEMU_MIB).min(MOST_MIB))
}

fn available(meminfo: &str) -> Option<Room> {
    let rest = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(Room {
        mib: kib >> 10,
        border: "this machine",
    })
}

/// QEMU reserves addresses for threads and libraries that it never fills: as much again as for itself.
fn in_address_space() -> Option<Room> {
    let limit = getrlimit(Resource::As).current?;
    Some(Room {
        mib: (limit >> 20).saturating_sub(QEMU_MIB),
        border: "the limit on a process's address space (`ulimit -v`)",
    })
}

/// Files of a memory control group: its limit, what it uses, and how it names what of that is only a cache.
struct Version {
    folder: &'static str,
    limit: &'static str,
    used: &'static str,
    cached: [&'static str; 2],
}

/// Documentation/admin-guide/cgroup-v1/memory.rst
const FIRST: Version = Version {
    folder: "memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_active_file", "total_inactive_file"],
};

/// Documentation/admin-guide/cgroup-v2.rst
const SECOND: Version = Version {
    folder: "",
    limit: "memory.max",
    used: "memory.current",
    cached: ["active_file", "inactive_file"],
};

/// The narrowest of the control groups that this process is in, as `/proc/self/cgroup` names them, and of those
/// around them. A container may see its own as the outermost.
fn in_control_groups(own: &str, mounts: &Path) -> Option<Room> {
    let mut room = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let version = match controllers {
            "" => SECOND,
            list if list.split(',').any(|name| name == "memory") => FIRST,
            _ => continue,
        };
        let top = mounts.join(version.folder);
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        let rooms = groups.filter_map(|group| version.room_in(&top.join(group)));
        room = rooms.chain(room).min();
    }
    Some(Room {
        mib: room? >> 20,
        border: "the limit of this control group",
    })
}

impl Version {
    /// In bytes; `None` without a limit.
    fn room_in(&self, group: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let limit = number(self.limit)?;
        let stat = read("memory.stat").unwrap_or_default();
        let cached = stat.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            self.cached.contains(&name).then(|| value.parse::<u64>().ok())?
        });
        let used = number(self.used)?.saturating_sub(cached.sum());
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(mib: u64) -> Room {
        Room {
            mib,
            border: "a test",
        }
    }

    #[test]
    fn a_machine_with_4_gib_gets_a_smaller_lab() {
        let meminfo =
            "MemTotal:        4019460 kB\nMemFree:          202152 kB\nMemAvailable:    3513344 kB\n";
        let room = available(meminfo).expect("a room");
        assert_eq!(lab_machine(&room).expect("a lab"), 3431 - 1024);
    }

    #[test]
    fn much_memory_is_left_alone_and_too_little_is_refused() {
        assert_eq!(lab_machine(&room(64 << 10)).expect("a lab"), 8192);
        assert_eq!(lab_machine(&room(3072)).expect("a lab"), 2048);
        let refusal = lab_machine(&room(3071)).expect_err("too little").to_string();
        assert!(
            refusal.contains("3072 MiB") && refusal.contains("3071 MiB"),
            "{refusal}"
        );
    }

    #[test]
    fn the_narrowest_group_around_counts_without_its_cache() {
        let mounts = tempfile::tempdir().expect("a folder");
        let inner = mounts.path().join("user/shell");
        fs::create_dir_all(&inner).expect("groups");
        let write =
            |folder: &Path, name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
        write(&inner, "memory.max", "max\n");
        let outer = mounts.path().join("user");
        write(&outer, "memory.max", "4294967296\n");
        write(&outer, "memory.current", "2147483648\n");
        write(
            &outer,
            "memory.stat",
            "anon 5\nactive_file 1073741824\ninactive_file 536870912\n",
        );
        let room = in_control_groups("0::/user/shell\n", mounts.path()).expect("a room");
        assert_eq!(room.mib, 4096 - 512);
    }

    #[test]
    fn the_first_version_has_files_of_its_own() {
        let mounts = tempfile::tempdir().expect("a folder");
        let group = mounts.path().join("memory");
        fs::create_dir_all(&group).expect("a group");
        fs::write(group.join("memory.limit_in_bytes"), "1073741824\n").expect("a limit");
        fs::write(group.join("memory.usage_in_bytes"), "1048576\n").expect("a use");
        let own = "9:name=systemd:/\n4:memory:/elsewhere\n0::/\n";
        let room = in_control_groups(own, mounts.path()).expect("a room");
        assert_eq!(room.mib, 1023);
    }

    #[test]
    fn no_limit_is_no_border() {
        let mounts = tempfile::tempdir().expect("a folder");
        fs::write(mounts.path().join("memory.max"), "max\n").expect("a limit");
        assert_eq!(in_control_groups("0::/\n", mounts.path()), None);
    }
}

//! The host's pools of large pages, and its nodes of memory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::block::RamBlock;
use super::source::RamSource;
use crate::config::{HugePages, MemoryConfig, MemorySize, Nodes, PageSize};

/// Where the kernel tells of its pools of large pages, and of nodes of memory.
const POOLS: &str = "/sys/kernel/mm/hugepages";
const NODES: &str = "/sys/devices/system/node";

/// Large pages or nodes that the host does not have.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The kernel has no pool of this size.
    #[error("--memory: this host has no pages of {0}; give another size to hugepages, or leave it out")]
    NoPool(PageSize),
    /// The pool has fewer than are needed.
    #[error(
        "--memory: of pages of {page} the guest takes {needed} and the host has {free} that are free; add them with: \
         echo {total} > {}{otherwise}", path.display()
    )]
    TooFew {
        /// The pages that were asked for, of which each size has a pool of its own.
        page: PageSize,
        /// How many the guest takes.
        needed: u64,
        /// How many nobody has, or has reserved.
        free: u64,
        /// How many there must be with those that others have.
        total: u64,
        /// The file that says how many there are.
        path: PathBuf,
        /// What else is to be tried.
        otherwise: &'static str,
    },
    /// A node of memory that is not there.
    #[error("--memory: host-nodes={wanted}: this host has memory in node {has} alone; give host-nodes={has}")]
    NoNode {
        /// What was asked for.
        wanted: Nodes,
        /// As the kernel lists them.
        has: String,
    },
    /// The kernel makes no such file.
    #[error("--memory: cannot make RAM of {0} in a file")]
    File(MemorySize, #[source] io::Error),
}

/// The source of RAM as `wanted`, with its large pages reserved.
pub(super) fn source(wanted: &MemoryConfig) -> Result<RamSource, PoolError> {
    if let Some(nodes) = &wanted.nodes {
        check_nodes(nodes)?;
    }
    let source = |file, page| RamSource {
        file,
        page,
        nodes: wanted.nodes,
    };
    let pools = Pools::of_host();
    match wanted.pages {
        HugePages::Of(page) => {
            pools.check(page, wanted)?;
            Ok(source(Some(file(wanted.size, Some(page))?), Some(page)))
        }
        HugePages::Transparent => Ok(source(shared(wanted)?, None)),
        HugePages::Auto => match pools.largest(wanted) {
            Some((page, file)) => Ok(source(Some(file), Some(page))),
            None => {
                log::info!(
                    "hugepages=auto: no pool has all of {}; RAM is of ordinary pages",
                    wanted.size
                );
                Ok(source(shared(wanted)?, None))
            }
        },
    }
}

/// A file for RAM of ordinary pages, where it is to be one.
fn shared(wanted: &MemoryConfig) -> Result<Option<File>, PoolError> {
    wanted.is_shared.then(|| file(wanted.size, None)).transpose()
}

/// A file of this size. Its large pages are reserved by mapping it once (`hugetlb_reserve_pages`, mm/hugetlb.c), for as long
/// as the file is there.
fn file(size: MemorySize, page: Option<PageSize>) -> Result<File, PoolError> {
    make(size, page).map_err(|error| PoolError::File(size, error))
}

fn make(size: MemorySize, page: Option<PageSize>) -> io::Result<File> {
    let kind = match page {
        None => MemfdFlags::empty(),
        Some(PageSize::TwoMib) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        Some(PageSize::OneGib) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
    };
    let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC | kind)?;
    ftruncate(&file, size.bytes())?;
    let file = File::from(file);
    RamBlock::of_file(&file, size.bytes())?;
    Ok(file)
}

/// The host's pools of large pages.
struct Pools<'a> {
    /// Where all of the host's are.
    all: &'a Path,
    /// Where those of each node are.
    nodes: &'a Path,
}

impl Pools<'static> {
    fn of_host() -> Self {
        Self {
            all: Path::new(POOLS),
            nodes: Path::new(NODES),
        }
    }
}

impl Pools<'_> {
    /// The largest pages of which there are enough, and a file of them.
    fn largest(&self, wanted: &MemoryConfig) -> Option<(PageSize, File)> {
        let made = |page: PageSize| {
            let fits = wanted.size.bytes().is_multiple_of(page.bytes()) && self.check(page, wanted).is_ok();
            Some((page, fits.then(|| file(wanted.size, Some(page)).ok())??))
        };
        [PageSize::OneGib, PageSize::TwoMib].into_iter().find_map(made)
    }

    /// Refuses what the pool of `page` does not have: that of the host, and that of the nodes, which do not tell what is
    /// reserved of their pages.
    fn check(&self, page: PageSize, wanted: &MemoryConfig) -> Result<(), PoolError> {
        let name = format!("hugepages-{}kB", page.bytes() >> 10);
        let needed = wanted.size.bytes() / page.bytes();
        check_places(&[self.all.join(&name)], page, needed)?;
        let node = |node| self.nodes.join(format!("node{node}/hugepages/{name}"));
        match &wanted.nodes {
            None => Ok(()),
            Some(nodes) => check_places(&nodes.iter().map(node).collect::<Vec<_>>(), page, needed),
        }
    }
}

/// Refuses pools that do not have so many pages together.
fn check_places(places: &[PathBuf], page: PageSize, needed: u64) -> Result<(), PoolError> {
    let (mut free, mut total) = (0, None);
    for place in places {
        let count = |file: &str| {
            fs::read_to_string(place.join(file))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        let (Some(idle), Some(here)) = (count("free_hugepages"), count("nr_hugepages")) else {
            return Err(PoolError::NoPool(page));
        };
        free += idle.saturating_sub(count("resv_hugepages").unwrap_or(0));
        total = total.or(Some(here));
    }
    if free >= needed {
        return Ok(());
    }
    let path = places.first().map(|place| place.join("nr_hugepages"));
    Err(PoolError::TooFew {
        page,
        needed,
        free,
        total: total.unwrap_or(0) + (needed - free),
        path: path.unwrap_or_default(),
        otherwise: match page {
            PageSize::TwoMib => "",
            PageSize::OneGib => "; where that adds none, start the host with hugepagesz=1G hugepages=N",
        },
    })
}

/// Refuses nodes without memory.
fn check_nodes(wanted: &Nodes) -> Result<(), PoolError> {
    let has = fs::read_to_string(format!("{NODES}/has_memory")).unwrap_or_else(|_| "0".to_owned());
    let has = has.trim();
    let all = has
        .split(',')
        .filter_map(|part| part.parse::<Nodes>().ok())
        .fold(0, |mask, part| mask | part.mask());
    match wanted.mask() & !all {
        0 => Ok(()),
        _ => Err(PoolError::NoNode {
            wanted: *wanted,
            has: has.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(folder: &Path, free: u64, reserved: u64, total: u64) {
        let pool = folder.join("hugepages-2048kB");
        fs::create_dir_all(&pool).expect("room");
        for (file, count) in [
            ("free_hugepages", free),
            ("resv_hugepages", reserved),
            ("nr_hugepages", total),
        ] {
            fs::write(pool.join(file), format!("{count}\n")).expect("room");
        }
    }

    fn refusal(folder: &Path, text: &str) -> Option<String> {
        let wanted: MemoryConfig = text.parse().expect("a value of --memory");
        let HugePages::Of(page) = wanted.pages else {
            panic!("no pages are asked for");
        };
        let pools = Pools {
            all: folder,
            nodes: folder,
        };
        pools.check(page, &wanted).err().map(|error| error.to_string())
    }

    #[test]
    fn a_pool_that_is_short_is_told_with_the_command_that_fills_it() {
        let folder = tempfile::tempdir().expect("a folder");
        pools(folder.path(), 300, 50, 400);
        assert_eq!(refusal(folder.path(), "500M,hugepages=2M"), None);
        let path = folder.path().join("hugepages-2048kB/nr_hugepages");
        assert_eq!(
            refusal(folder.path(), "512M,hugepages=2M"),
            Some(format!(
                "--memory: of pages of 2M the guest takes 256 and the host has 250 that are free; add them with: \
                 echo 406 > {}",
                path.display()
            ))
        );
        let refused = refusal(folder.path(), "1G,hugepages=1G").expect("there is no such pool");
        assert!(refused.contains("no pages of 1G"), "{refused}");
    }

    #[test]
    fn memory_is_of_nodes_that_have_some() {
        let refused = check_nodes(&"63".parse().expect("a node")).expect_err("no host has so many");
        assert!(refused.to_string().contains("host-nodes=63"), "{refused}");
        check_nodes(&"0".parse().expect("a node")).expect("every host has that");
    }

    #[test]
    fn shared_memory_is_a_file_of_that_size() {
        let wanted = "64M,shared=on".parse().expect("a value of --memory");
        let found = source(&wanted).expect("a file");
        assert_eq!(
            found.file.expect("shared").metadata().expect("a file").len(),
            64 << 20
        );
    }
}

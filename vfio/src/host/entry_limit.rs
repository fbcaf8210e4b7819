//! The kernel's limit of DMA mappings, raised for devices and put back with the last of them.
//!
//! VFIO reads it when a container is opened (`vfio_iommu_type1_open`, drivers/vfio/vfio_iommu_type1.c). What a guest
//! without an IOMMU maps are a few large pieces; behind an IOMMU of its own each page of it may be a mapping.

use std::fs;
use std::io;

use super::HostBdf;
use super::access::Host;
use super::hint;
use super::journal::write_whole;
use super::sysfs::{Root, read_text};

/// The module that has the limit as a parameter, and what it is unless told otherwise.
const MODULE: &str = "vfio_iommu_type1";
const PARAMETER: &str = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
pub(super) const DEFAULT_LIMIT: u32 = 65_535;

/// Where the way back stands, beside the journal of devices.
const RECORD: &str = "run/strait/dma-entry-limit";
/// First line of the record.
const MAGIC: &str = "strait dma-entry-limit 1";

const PAGE_BYTES: u64 = 4096;

/// A limit that cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum EntryLimitError {
    /// VFIO's module does not load, or has no such parameter.
    #[error("there is no /{PARAMETER}, where the limit of DMA mappings is set")]
    Missing(#[source] io::Error),
    /// The kernel refuses the limit.
    #[error("cannot set dma_entry_limit to {limit}{}", hint::rights(.source))]
    Write {
        /// What it should be.
        limit: u32,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The way back cannot be kept.
    #[error("cannot use /{RECORD}, where the limit of before is kept{}", hint::rights(.0))]
    Record(#[source] io::Error),
}

/// Mappings that one device of a guest with an IOMMU of its own may need: one for each page of its memory, when that
/// lies scattered.
pub fn entries_needed(memory_bytes: u64) -> u64 {
    memory_bytes.div_ceil(PAGE_BYTES)
}

/// The limit now; `None` while the module is not loaded.
pub(super) fn limit(root: &Root) -> Option<u32> {
    root.text(PARAMETER)?.parse().ok()
}

/// What was changed, for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    before: u32,
    /// What it is by us: what it was set to last, after what it was until then. Whoever is killed between the record
    /// and the write leaves the latter.
    set: Vec<u32>,
    askers: Vec<HostBdf>,
}

/// Raises the limit to `wanted` for `devices`, unless it is as high already. Returns which of them it is kept for
/// since now.
///
/// # Errors
/// When the limit or its way back cannot be written; both are as before then.
pub(super) fn raise(
    host: Host<'_>,
    devices: &[HostBdf],
    wanted: u32,
) -> Result<Vec<HostBdf>, EntryLimitError> {
    let now = loaded_limit(host)?;
    let former = read(host.root)?;
    if former.is_none() && now >= wanted {
        return Ok(Vec::new());
    }
    // Somebody else's limit is what there is to go back to.
    let ours = former.as_ref().filter(|former| former.set.contains(&now));
    let mut askers = former
        .as_ref()
        .map_or_else(Vec::new, |former| former.askers.clone());
    let new: Vec<_> = devices
        .iter()
        .filter(|bdf| !askers.contains(bdf))
        .copied()
        .collect();
    askers.extend(&new);
    let limit = now.max(wanted);
    let mut set_before: Vec<u32> = ours.map(|_| now).into_iter().collect();
    set_before.retain(|set| *set != limit);
    let record = Record {
        before: ours.map_or(now, |former| former.before),
        set: [set_before, vec![limit]].concat(),
        askers,
    };
    write(host.root, &record)?;
    if let Err(error) = set(host, now, limit) {
        match former {
            Some(former) => write(host.root, &former)?,
            None => remove(host.root)?,
        }
        return Err(error);
    }
    Ok(new)
}

/// `bdf` needs the limit no longer; with the last such device it is what it was before, unless somebody else
/// changed it.
///
/// # Errors
/// When the limit or the record cannot be written; a later call goes on from there.
pub(super) fn let_go(host: Host<'_>, bdf: HostBdf) -> Result<(), EntryLimitError> {
    let Some(mut record) = read(host.root)?.filter(|record| record.askers.contains(&bdf)) else {
        return Ok(());
    };
    record
        .askers
        .retain(|other| *other != bdf && host.root.function(*other).exists());
    if !record.askers.is_empty() {
        return write(host.root, &record);
    }
    if let Some(now) = limit(host.root).filter(|now| record.set.contains(now)) {
        set(host, now, record.before)?;
    }
    remove(host.root)
}

/// Devices that the limit is kept for.
pub(super) fn askers(root: &Root) -> Vec<HostBdf> {
    read(root)
        .ok()
        .flatten()
        .map_or_else(Vec::new, |record| record.askers)
}

fn loaded_limit(host: Host<'_>) -> Result<u32, EntryLimitError> {
    if let Some(limit) = limit(host.root) {
        return Ok(limit);
    }
    host.kernel
        .load_module(MODULE)
        .map_err(EntryLimitError::Missing)?;
    limit(host.root).ok_or_else(|| EntryLimitError::Missing(io::ErrorKind::NotFound.into()))
}

fn set(host: Host<'_>, now: u32, limit: u32) -> Result<(), EntryLimitError> {
    if now == limit {
        return Ok(());
    }
    host.kernel
        .write(&host.root.path(PARAMETER), &format!("{limit}\n"))
        .map_err(|source| EntryLimitError::Write { limit, source })
}

fn write(root: &Root, record: &Record) -> Result<(), EntryLimitError> {
    let Record { before, set, askers } = record;
    let set: Vec<String> = set.iter().map(u32::to_string).collect();
    let askers: Vec<String> = askers.iter().map(HostBdf::to_string).collect();
    let (set, askers) = (set.join(" "), askers.join(" "));
    let content = format!("{MAGIC}\nbefore {before}\nset {set}\nfor {askers}\n");
    write_whole(&root.path(RECORD), &content).map_err(EntryLimitError::Record)
}

/// One that is damaged says nothing of a limit to go back to.
fn read(root: &Root) -> Result<Option<Record>, EntryLimitError> {
    match read_text(&root.path(RECORD)) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EntryLimitError::Record(error)),
    }
}

fn parse(text: &str) -> Option<Record> {
    let lines: Vec<&str> = text.lines().collect();
    let [MAGIC, before, set, askers] = lines[..] else {
        return None;
    };
    let set = set.strip_prefix("set ")?.split(' ');
    let askers = askers.strip_prefix("for ")?.split(' ');
    Some(Record {
        before: before.strip_prefix("before ")?.parse().ok()?,
        set: set.map(str::parse).collect::<Result<_, _>>().ok()?,
        askers: askers.map(str::parse).collect::<Result<_, _>>().ok()?,
    })
}

fn remove(root: &Root) -> Result<(), EntryLimitError> {
    match fs::remove_file(root.path(RECORD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EntryLimitError::Record(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{Does, FakeFunction, FakeHost};

    fn host(limit: u32) -> FakeHost {
        let host = FakeHost::new();
        for path in ["0000:00:01.0", "0000:00:02.0"] {
            let (class, ids) = (0x02_0000, (0x8086, 0x10c9));
            let (group, driver) = (Some(7), None);
            host.add(FakeFunction {
                path,
                class,
                ids,
                group,
                driver,
            });
        }
        host.file(PARAMETER, &format!("{limit}\n"));
        host
    }

    fn device(name: &str) -> HostBdf {
        name.parse().expect("a name")
    }

    #[test]
    fn the_limit_goes_back_with_the_last_device_that_asked() {
        let (host, first, second) = (host(65_535), device("00:01.0"), device("00:02.0"));
        let (root, before) = (host.root(), host.picture());
        raise(Host::new(&root, &host), &[first], 262_144).expect("raised");
        raise(Host::new(&root, &host), &[second], 131_072).expect("high enough");
        assert_eq!(limit(&root), Some(262_144));
        let_go(Host::new(&root, &host), first).expect("one needs it still");
        assert_eq!(limit(&root), Some(262_144));
        let_go(Host::new(&root, &host), first).expect("it asks no longer");
        let_go(Host::new(&root, &host), second).expect("put back");
        assert!(host.picture() == before);
    }

    #[test]
    fn a_device_that_is_gone_holds_nothing_up() {
        let (host, gone, there) = (host(65_535), device("00:07.0"), device("00:02.0"));
        raise(Host::new(&host.root(), &host), &[gone, there], 131_072).expect("raised");
        let_go(Host::new(&host.root(), &host), there).expect("put back");
        assert_eq!(limit(&host.root()), Some(65_535));
    }

    #[test]
    fn a_limit_that_is_high_enough_is_left_alone() {
        let host = host(1 << 20);
        let before = host.picture();
        assert_eq!(
            raise(Host::new(&host.root(), &host), &[device("00:01.0")], 262_144).expect("enough"),
            []
        );
        assert!(host.picture() == before);
    }

    #[test]
    fn what_somebody_else_set_meanwhile_stays() {
        let (host, asker) = (host(65_535), device("00:01.0"));
        raise(Host::new(&host.root(), &host), &[asker], 131_072).expect("raised");
        host.file(PARAMETER, "500000\n");
        let_go(Host::new(&host.root(), &host), asker).expect("forgotten");
        assert_eq!(
            (limit(&host.root()), askers(&host.root())),
            (Some(500_000), Vec::new())
        );
    }

    #[test]
    fn whoever_is_killed_at_a_second_raise_leaves_the_way_back() {
        let (host, first, second) = (host(65_535), device("00:01.0"), device("00:02.0"));
        let (root, before) = (host.root(), host.picture());
        raise(Host::new(&root, &host), &[first], 131_072).expect("raised");
        raise(Host::new(&root, &host), &[second], 262_144).expect("raised");
        // Killed after the record and before the write.
        host.file(PARAMETER, "131072\n");
        let_go(Host::new(&root, &host), first).expect("one needs it still");
        let_go(Host::new(&root, &host), second).expect("put back");
        assert!(host.picture() == before);
        // And the same where a third one goes on from there.
        raise(Host::new(&root, &host), &[first], 131_072).expect("raised");
        raise(Host::new(&root, &host), &[second], 262_144).expect("raised");
        host.file(PARAMETER, "131072\n");
        raise(Host::new(&root, &host), &[second], 524_288).expect("raised");
        let_go(Host::new(&root, &host), first).expect("one needs it still");
        let_go(Host::new(&root, &host), second).expect("put back");
        assert_eq!(limit(&root), Some(65_535));
    }

    #[test]
    fn a_kernel_that_refuses_leaves_no_record() {
        let host = host(65_535);
        let before = host.picture();
        host.fault("dma_entry_limit", 0, Does::Fails(libc::EACCES));
        let error =
            raise(Host::new(&host.root(), &host), &[device("00:01.0")], 131_072).expect_err("refused");
        assert!(error.to_string().ends_with("to 131072; run as root"), "{error}");
        assert!(host.picture() == before);
    }

    #[test]
    fn every_cut_record_is_damaged() {
        let whole = format!("{MAGIC}\nbefore 1\nset 2\nfor 0000:00:01.0 0000:00:02.0\n");
        assert_eq!(parse(&whole).expect("whole").askers.len(), 2);
        for cut in [
            "",
            MAGIC,
            &whole[..whole.len() - 16],
            &whole.replace("before", "after"),
        ] {
            assert_eq!(parse(cut), None, "{cut}");
        }
    }
}

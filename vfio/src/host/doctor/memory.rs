//! Memory: what may be locked, in which pages, in how many mappings.

use super::{Finding, Wishes};
use crate::host::check::check_memlock;
use crate::host::process::lockable_bytes;
use crate::host::sysfs::Root;

const HUGE_PAGE: u64 = 2 << 20;
/// What the kernel has unless told otherwise (drivers/vfio/vfio_iommu_type1.c).
const DEFAULT_ENTRY_LIMIT: u64 = 65_535;

pub(super) fn examine(root: &Root, wishes: &Wishes) -> Vec<Finding> {
    vec![memlock(root, wishes), huge_pages(root, wishes), entry_limit(root)]
}

/// Locked pages are counted once for each address space they are mapped in.
fn memlock(root: &Root, wishes: &Wishes) -> Finding {
    let needed = wishes.memory_bytes.saturating_mul(wishes.address_spaces);
    let allowed = check_memlock(root, needed);
    Finding::of("memlock", "May the guest's memory be locked?", &allowed, |()| {
        let each = wishes.memory_bytes >> 20;
        let needed = match wishes.address_spaces {
            1 => format!("{each} MiB needed"),
            spaces => format!(
                "{} MiB needed, {each} in each of {spaces} address spaces",
                needed >> 20
            ),
        };
        match lockable_bytes(root) {
            None => format!("{needed}, no limit"),
            Some(limit) => format!("{needed}, {} MiB allowed", limit >> 20),
        }
    })
}

fn huge_pages(root: &Root, wishes: &Wishes) -> Finding {
    let question = "Is there memory in large pages?";
    let free = root.text("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = free.and_then(|text| text.parse().ok()).unwrap_or(0);
    let transparent = root
        .text("sys/kernel/mm/transparent_hugepage/enabled")
        .unwrap_or_default();
    let mode = transparent
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(mode, _)| mode);
    let evidence = format!("{free} pages of 2 MiB free, transparent ones: {mode}");
    let finding = Finding::pass("huge-pages", question, evidence);
    let needed = wishes.memory_bytes.div_ceil(HUGE_PAGE);
    match mode == "never" && free < needed {
        true => finding.warn(
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; without large pages a guest starts \
             slowly and runs slower",
        ),
        false => finding,
    }
}

fn entry_limit(root: &Root) -> Finding {
    let question = "Are enough DMA mappings allowed?";
    let path = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    let Some(limit) = root.text(path).and_then(|text| text.parse::<u64>().ok()) else {
        return Finding::pass("dma-entry-limit", question, "vfio_iommu_type1 is not loaded yet");
    };
    let finding = Finding::pass("dma-entry-limit", question, format!("dma_entry_limit is {limit}"));
    match limit < DEFAULT_ENTRY_LIMIT {
        true => finding.warn(format!("echo {DEFAULT_ENTRY_LIMIT} > /{path}")),
        false => finding,
    }
}

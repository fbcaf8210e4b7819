//! Memory: what may be locked, in which pages, in how many mappings.

use super::{Finding, Wishes};
use crate::host::check::check_memlock;
use crate::host::entry_limit::{self, DEFAULT_LIMIT};
use crate::host::hardware::memory_bytes;
use crate::host::process::lockable_bytes;
use crate::host::sysfs::Root;

const HUGE_PAGE: u64 = 2 << 20;
const GIANT_PAGE: u64 = 1 << 30;

pub(super) fn examine(root: &Root, wishes: &Wishes) -> Vec<Finding> {
    vec![
        memlock(root, wishes),
        huge_pages(root, wishes),
        entries(root, wishes),
    ]
}

/// Locked pages are counted once for each address space they are mapped in.
fn memlock(root: &Root, wishes: &Wishes) -> Finding {
    let needed = wishes.memory_bytes.saturating_mul(wishes.address_spaces);
    let question = "May the guest's memory be locked?";
    let has = memory_bytes(root).filter(|has| wishes.memory_bytes > *has);
    if let Some(has) = has {
        let (wanted, has) = (wishes.memory_bytes >> 20, has >> 20);
        return Finding::pass(
            "memlock",
            question,
            format!("{wanted} MiB wanted, and this host has {has} MiB"),
        )
        .fail("give the guest less memory");
    }
    let allowed = check_memlock(root, needed);
    Finding::of("memlock", question, &allowed, |()| {
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
    let free = free_pages(root, HUGE_PAGE).unwrap_or(0);
    let pools = match free_pages(root, GIANT_PAGE) {
        None => format!("{free} pages of 2 MiB free"),
        Some(giant) => format!("{free} pages of 2 MiB free and {giant} of 1 GiB"),
    };
    let Some(transparent) = root.text("sys/kernel/mm/transparent_hugepage/enabled") else {
        let evidence = format!("{pools}, and the kernel makes no transparent ones");
        return Finding::pass("huge-pages", question, evidence).warn(
            "a guest starts slowly and runs slower; a kernel with CONFIG_TRANSPARENT_HUGEPAGE does better",
        );
    };
    let mode = transparent
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(mode, _)| mode);
    let evidence = format!("{pools}, transparent ones: {mode}");
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

/// Pages of this many bytes in the kernel's pool that nobody has; `None` without such a pool.
fn free_pages(root: &Root, bytes: u64) -> Option<u64> {
    let kib = bytes >> 10;
    let free = root.text(format!(
        "sys/kernel/mm/hugepages/hugepages-{kib}kB/free_hugepages"
    ))?;
    free.parse().ok()
}

/// Without an IOMMU a guest maps a few large pieces; with one it maps page by page.
fn entries(root: &Root, wishes: &Wishes) -> Finding {
    let question = "Are enough DMA mappings allowed?";
    let limit = entry_limit::limit(root);
    let now = match limit {
        Some(limit) => format!("dma_entry_limit is {limit}"),
        None => format!(
            "dma_entry_limit is {DEFAULT_LIMIT} once vfio_iommu_type1 is loaded, unless an option says more"
        ),
    };
    let limit = u64::from(limit.unwrap_or(DEFAULT_LIMIT));
    let scattered = entry_limit::entries_needed(wishes.memory_bytes);
    let mebibytes = wishes.memory_bytes >> 20;
    let finding = |evidence| Finding::pass("dma-entry-limit", question, evidence);
    if limit >= scattered {
        return finding(format!("{now}, enough for every page of {mebibytes} MiB"));
    }
    let needed = format!("up to {scattered} for each device, one a page of {mebibytes} MiB");
    match wishes.has_viommu || limit < u64::from(DEFAULT_LIMIT) {
        true => finding(format!(
            "{now}; a guest with an IOMMU of its own may need {needed}"
        ))
        .warn(format!(
            "strait host bind --dma-entries {scattered} DEVICE, before the guest starts"
        )),
        false => finding(format!(
            "{now}; a guest with an IOMMU of its own (doctor --viommu) may need {needed}: bind --dma-entries {scattered}"
        )),
    }
}

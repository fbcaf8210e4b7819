//! Random edits of the tables with the invalidations they need, against a slow reference.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::guest::*;

/// 4 MiB of device addresses, a page a slot.
const BASE: u64 = 0x4000_0000;
const SLOTS: u64 = 1024;

#[derive(Clone, Debug)]
enum Edit {
    Map {
        first: u64,
        count: u64,
        target: u64,
        rights: u64,
    },
    Unmap {
        first: u64,
        count: u64,
    },
    Large {
        second: bool,
        target: u64,
    },
    Refuse(bool),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..SLOTS, 1u64..40, 0u64..4096, 1u64..4)
            .prop_map(|(first, count, target, rights)| Edit::Map { first, count, target, rights }),
        3 => (0..SLOTS, 1u64..200).prop_map(|(first, count)| Edit::Unmap { first, count }),
        1 => (any::<bool>(), 0u64..8).prop_map(|(second, target)| Edit::Large { second, target }),
        1 => any::<bool>().prop_map(Edit::Refuse),
    ]
}

/// The pages that are mapped, by slot: target page and rights.
type Reference = BTreeMap<u64, (u64, u64)>;

fn apply(guest: &mut Guest, reference: &mut Reference, edit: &Edit) {
    match *edit {
        Edit::Map {
            first,
            count,
            target,
            rights,
        } => {
            for page in 0..count.min(SLOTS - first) {
                set(
                    guest,
                    reference,
                    first + page,
                    Some((0x4000 - 4200 + target + page, rights)),
                );
            }
            invalidate(guest, first, count.min(SLOTS - first));
        }
        Edit::Unmap { first, count } => {
            for page in 0..count.min(SLOTS - first) {
                set(guest, reference, first + page, None);
            }
            invalidate(guest, first, count.min(SLOTS - first));
        }
        Edit::Large { second, target } => {
            let first = if second { 512 } else { 0 };
            let entry = guest.entry(BASE + first * 0x1000, 2);
            guest.store(entry, (target * 0x20_0000) | LARGE | READ);
            for page in 0..512 {
                reference.insert(first + page, (target * 512 + page, READ));
            }
            guest.invalidate_pages(BASE + first * 0x1000, 0);
        }
        Edit::Refuse(refused) => guest.domain.set_refused(refused),
    }
}

/// A page in the place of a large page replaces all of it.
fn set(guest: &mut Guest, reference: &mut Reference, slot: u64, page: Option<(u64, u64)>) {
    let iova = BASE + slot * 0x1000;
    let upper = guest.entry(iova, 2);
    if guest.load(upper) & LARGE != 0 {
        let first = slot / 512 * 512;
        reference.retain(|slot, _| !(first..first + 512).contains(slot));
    }
    let value = page.map_or(0, |(target, rights)| (target * 0x1000) | rights);
    guest.set_page(iova, value);
    match page {
        Some(page) => reference.insert(slot, page),
        None => reference.remove(&slot),
    };
}

/// As Linux rounds it: one aligned power of two that covers all.
fn invalidate(guest: &mut Guest, first: u64, count: u64) {
    let mask = (0..10)
        .find(|mask| first >> mask == (first + count - 1) >> mask)
        .unwrap_or(10);
    guest.invalidate_pages(BASE + (first >> mask << mask) * 0x1000, mask);
}

fn mapped(guest: &Guest) -> Reference {
    let mut pages = Reference::new();
    for mapping in guest.domain.mappings() {
        for page in 0..mapping.len_bytes / 0x1000 {
            let target = (mapping.host.0 - HOST) / 0x1000 + page;
            pages.insert(
                (mapping.iova.0 - BASE) / 0x1000 + page,
                (target, u64::from(mapping.access.bits())),
            );
        }
    }
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_host_follows_the_reference(edits in proptest::collection::vec(edit(), 1..60)) {
        let mut guest = Guest::translating();
        let mut reference = Reference::new();
        for edit in &edits {
            apply(&mut guest, &mut reference, edit);
            // Whatever the host refuses, nothing is reachable that should not be.
            for (slot, page) in mapped(&guest) {
                prop_assert_eq!(reference.get(&slot), Some(&page));
            }
        }
        guest.domain.set_refused(false);
        guest.invalidate(&[IOTLB_GLOBAL]);
        prop_assert_eq!(mapped(&guest), reference);
        prop_assert_eq!(guest.vtd.stats().devices[0].shadow.failed_unmaps, 0);
    }
}

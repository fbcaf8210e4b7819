//! What the tables say, read slowly and straight from the specification's figures (§9.1, §9.3, §9.8): no
//! names are shared with the unit.

use std::ops::Range;

use super::machine::{BAR, Machine, PAGE, Piece, SLOTS, WINDOW, joined};
use crate::dma::Access;

/// Table entries that a reference reads at most; what needs more is not compared.
const PATIENCE: u32 = 1 << 14;

/// What a context entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Blocked,
    Passes,
    Walks { root: u64, levels: u32 },
}

/// The context of a device below the root table at `root`, and its domain.
pub(super) fn context(machine: &Machine, root: u64, id: u16) -> (Way, u16) {
    let load = |at| machine.ram.peek(at);
    let entry = root + u64::from(id >> 8) * 16;
    let (Some(low), Some(high)) = (load(entry), load(entry + 8)) else {
        return (Way::Blocked, 0);
    };
    if low & 1 == 0 || low & 0xffe != 0 || high != 0 || !is_address(machine, low & !0xfff) {
        return (Way::Blocked, 0);
    }
    let entry = (low & !0xfff) + u64::from(id & 0xff) * 16;
    let (Some(low), Some(high)) = (load(entry), load(entry + 8)) else {
        return (Way::Blocked, 0);
    };
    let domain = (high >> 8) as u16;
    let has_reserved = low & 0xff0 != 0 || high >> 24 != 0 || high & 0x80 != 0;
    let levels = (high & 7) as u32 + 2;
    let widest = if machine.config.width.bits() == 39 { 3 } else { 4 };
    let way = match low >> 2 & 3 {
        _ if low & 1 == 0 || has_reserved => Way::Blocked,
        2 => Way::Passes,
        0 if is_address(machine, low & !0xfff) && (3..=widest).contains(&levels) => Way::Walks {
            root: low & !0xfff,
            levels,
        },
        _ => Way::Blocked,
    };
    (way, domain)
}

/// Addresses have as many bits as the unit's width.
fn is_address(machine: &Machine, address: u64) -> bool {
    address >> machine.config.width.bits() == 0
}

/// What a device reaches in `range`, or nothing said where the tables are too large to tell.
pub(super) fn reachable(machine: &Machine, way: Way, range: &Range<u64>) -> Option<Vec<Piece>> {
    let mut found = Vec::new();
    match way {
        Way::Blocked => {}
        Way::Passes => {
            for slot in SLOTS {
                push(machine, &mut found, slot.at, slot.at, slot.len, Access::all());
            }
        }
        Way::Walks { root, levels } => {
            let mut reads = 0;
            follow(machine, root, levels, (0, 3), range, &mut reads, &mut found)?;
        }
    }
    Some(within(&joined(found), range))
}

/// One table, whose first entry stands for `base`, below entries that together grant `rights`.
fn follow(
    machine: &Machine,
    table: u64,
    level: u32,
    (base, rights): (u64, u64),
    range: &Range<u64>,
    reads: &mut u32,
    found: &mut Vec<Piece>,
) -> Option<()> {
    let size = 1u64 << (12 + 9 * (level - 1));
    let first = (range.start.max(base) - base) / size;
    let end = (range.end.max(base) - base).div_ceil(size).min(512);
    for index in first..end {
        let Some(entry) = machine.ram.peek(table + index * 8).filter(|entry| *entry != 0) else {
            continue;
        };
        *reads += 1;
        if *reads > PATIENCE {
            return None;
        }
        let Some((address, is_leaf)) = decode(machine, entry, level) else {
            continue;
        };
        let (iova, rights) = (base + index * size, entry & rights);
        match is_leaf {
            _ if rights == 0 => {}
            true => push(
                machine,
                found,
                iova,
                address,
                size,
                Access::from_bits_truncate(rights as u8),
            ),
            false => follow(machine, address, level - 1, (iova, rights), range, reads, found)?,
        }
    }
    Some(())
}

/// Where an entry that is present points, and whether it is a page.
fn decode(machine: &Machine, entry: u64, level: u32) -> Option<(u64, bool)> {
    let has = |bit: u32| entry >> bit & 1 != 0;
    let is_leaf = level == 1 || has(7);
    let address = entry & 0x000f_ffff_ffff_f000;
    let size = 1u64 << (12 + 9 * (level - 1));
    let is_bad = level == 4 && has(7)
        || has(11) && !(machine.config.snoop_control && is_leaf)
        || has(62)
        || !is_address(machine, address)
        || is_leaf && !address.is_multiple_of(size);
    (entry & 3 != 0 && !is_bad).then_some((address, is_leaf))
}

/// The parts of a page that are memory, outside the interrupt window.
fn push(machine: &Machine, found: &mut Vec<Piece>, iova: u64, target: u64, len: u64, access: Access) {
    for slot in SLOTS {
        if slot == BAR && !machine.has_bar() {
            continue;
        }
        for (first, end) in [(0, WINDOW.0), (WINDOW.1, u64::MAX)] {
            let start = slot
                .at
                .max(target)
                .max(target.saturating_add(first.max(iova) - iova));
            let stop = (slot.at + slot.len).min(target + len);
            let stop = stop.min(target.saturating_add(end.max(iova) - iova));
            if start < stop {
                found.push(Piece {
                    iova: iova + (start - target),
                    len: stop - start,
                    host: slot.host + (start - slot.at),
                    access,
                });
            }
        }
    }
}

/// Where one request of an emulated device goes.
pub(super) fn request(machine: &Machine, way: Way, iova: u64, access: Access) -> Option<u64> {
    match way {
        Way::Blocked => None,
        Way::Passes => Some(iova),
        Way::Walks { root, levels } => {
            let width = machine.config.width.bits().min(12 + 9 * levels as u8);
            let (mut table, mut rights) = (root, 3);
            for level in (1..=levels).rev().filter(|_| iova >> width == 0) {
                let size = 1u64 << (12 + 9 * (level - 1));
                let entry = machine.ram.peek(table + iova / size % 512 * 8)?;
                let (address, is_leaf) = decode(machine, entry, level)?;
                rights &= entry;
                if is_leaf {
                    let to = address + iova % size;
                    let is_granted = u64::from(access.bits()) & !rights == 0;
                    let is_interrupt = (WINDOW.0..WINDOW.1).contains(&to);
                    return (is_granted && !is_interrupt).then_some(to);
                }
                table = address;
            }
            None
        }
    }
}

/// The parts of `pieces` in `range`.
pub(super) fn within(pieces: &[Piece], range: &Range<u64>) -> Vec<Piece> {
    let cut = |piece: &Piece| {
        let start = piece.iova.max(range.start);
        let end = (piece.iova + piece.len).min(range.end);
        (start < end).then(|| Piece {
            iova: start,
            len: end - start,
            host: piece.host + (start - piece.iova),
            access: piece.access,
        })
    };
    pieces.iter().filter_map(cut).collect()
}

/// True if all that is reached is also in `allowed`.
pub(super) fn is_part(pieces: &[Piece], allowed: &[Piece]) -> bool {
    let is_in = |piece: &Piece| joined(within(allowed, &(piece.iova..piece.iova + piece.len))) == [*piece];
    pieces.iter().all(is_in)
}

/// The page that holds `address`.
pub(super) fn page(address: u64) -> u64 {
    address / PAGE * PAGE
}

//! The places of RAM and the 64-bit window, on a host whose devices do not reach every address.
//!
//! RAM is at the same address for the guest and, without a virtual IOMMU or with one that lets it pass, for
//! its devices. So it must lie where the host's IOMMU can map it: below its width, and clear of ranges that
//! the host keeps for itself (interrupt messages, memory of the firmware, on AMD the last 12 GiB below 1 TiB).
//! The window should, so that devices reach each other's BARs.

use std::ops::RangeInclusive;

use strait_devices::pci::firmware;
use vm_memory::GuestAddress;

use crate::layout::{HIGH_RAM, MMIO_32, Range, low_ram_end};

const GIB: u64 = 1 << 30;

/// Address bits that every host can map. CPUs may have 52, but page tables of four levels, which KVM uses for guests
/// where the host's kernel has them itself or the CPU no others, end here (`kvm_mmu_get_max_tdp_level`).
const MAPPED_BITS: u8 = 48;

/// I/O virtual addresses that the host's IOMMU maps for all passed devices: ascending ranges with gaps between them, as
/// VFIO tells them (VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IovaRanges(Vec<RangeInclusive<u64>>);

/// A part of RAM for which the host's IOMMU has no room, with the first gap that is in the way.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--memory: {ram} MiB of RAM have no place from {start:#x} on: the host's IOMMU does not map {first:#x}-{last:#x} \
     for these devices; give less memory, or look at /sys/kernel/iommu_groups/*/reserved_regions"
)]
pub struct PlacementError {
    ram: u64,
    start: u64,
    first: u64,
    last: u64,
}

/// Where RAM and the window for large BARs lie in the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// RAM, ascending: below 4 GiB, and what did not fit there.
    pub ram: Vec<Range>,
    /// The window for BARs above RAM; none if there is no room.
    pub mmio_64: Option<Range>,
}

impl IovaRanges {
    /// Every address: without devices, or where the kernel does not tell.
    pub fn everything() -> Self {
        Self(vec![0..=u64::MAX])
    }

    /// What is left when only `ranges` can be used, too. An empty list stands for all: then the
    /// kernel did not tell.
    #[must_use]
    pub fn within(self, ranges: &[RangeInclusive<u64>]) -> Self {
        if ranges.is_empty() {
            return self;
        }
        let common = |own: &RangeInclusive<u64>| {
            let own = own.clone();
            ranges
                .iter()
                .map(move |other| *own.start().max(other.start())..=*own.end().min(other.end()))
        };
        let mut common: Vec<_> = self
            .0
            .iter()
            .flat_map(common)
            .filter(|range| !range.is_empty())
            .collect();
        common.sort_by_key(|range| *range.start());
        Self(common)
    }

    /// Whether all of them from `start` to `last` can be mapped.
    pub fn has(&self, start: u64, last: u64) -> bool {
        let holds = |range: &RangeInclusive<u64>| range.contains(&start) && range.contains(&last);
        self.0.iter().any(holds)
    }

    /// The number of bits of the highest address that can be mapped.
    pub fn bits(&self) -> u8 {
        let last = self.0.last().map_or(0, |range| *range.end());
        64 - last.leading_zeros() as u8
    }

    /// Addresses below `1 << bits` that devices cannot be given, ascending.
    fn gaps(&self, bits: u8) -> Vec<Range> {
        let end = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
        let (mut gaps, mut next) = (Vec::new(), 0);
        for range in &self.0 {
            if next < *range.start().min(&end) {
                gaps.push(Range::new(next, *range.start().min(&end)));
            }
            next = range.end().saturating_add(1);
        }
        if next < end {
            gaps.push(Range::new(next, end));
        }
        gaps
    }

    /// Address bits for a virtual IOMMU of whose addresses all can be mapped, but for gaps that [`Self::windows`]
    /// covers: those that end below `1 << cpu_bits`. One on top costs bits.
    pub fn usable_bits(&self, cpu_bits: u8) -> u8 {
        let is_covered = |gap: &Range| gap.last().0 >> cpu_bits.min(63) == 0;
        let is_usable = |bits: &u8| self.gaps(*bits).iter().all(is_covered);
        (0..=self.bits()).rev().find(is_usable).unwrap_or(0)
    }

    /// Windows of the PCI host bridge over what a guest's IOMMU of `bits` cannot map. Linux keeps its DMA clear of
    /// them (`iova_reserve_pci_windows`, drivers/iommu/dma-iommu.c); a reserved region in the DMAR table would keep it
    /// from giving the device to a guest of its own. From `mmio_32` up to 4 GiB are that window, ECAM, which no
    /// window may cover, and the interrupt messages, which every IOMMU driver knows.
    pub fn windows(&self, bits: u8, mmio_32: Range) -> Vec<Range> {
        let parts = |gap: Range| {
            let low = Range::new(gap.start.0, gap.end().0.min(mmio_32.start.0).max(gap.start.0));
            let high = Range::new(gap.start.0.max(HIGH_RAM.0).min(gap.end().0), gap.end().0);
            [low, high]
        };
        let windows = self.gaps(bits).into_iter().flat_map(parts);
        windows.filter(|window| window.len > 0).collect()
    }

    /// The first range of `len` bytes at or above `from` that is reached as a whole.
    fn find(&self, from: u64, len: u64) -> Option<Range> {
        self.0.iter().find_map(|range| {
            let start = (*range.start()).max(from);
            // What goes behind a reserved range starts on 1 GiB, the largest page of CPU and IOMMU.
            let start = if start == from {
                from
            } else {
                start.checked_next_multiple_of(GIB)?
            };
            let last = start.checked_add(len - 1)?;
            range.contains(&last).then(|| Range::new(start, last + 1))
        })
    }

    /// The first gap that ends at or above `address`.
    fn gap_from(&self, address: u64) -> (u64, u64) {
        let mut first = 0;
        for range in &self.0 {
            if *range.start() > address.max(first) {
                return (first, range.start() - 1);
            }
            match range.end().checked_add(1) {
                Some(next) => first = next,
                None => break,
            }
        }
        (first, u64::MAX)
    }
}

/// The window below 4 GiB for devices that decode memory of these sizes there, a list for each root port. It takes
/// room from RAM only as far as it must; what fits into none of them is refused where it is placed.
pub fn low_window(sizes: &[Vec<u64>]) -> Range {
    let [.., widest] = MMIO_32;
    let fits = |window: &Range| firmware::fits(sizes, window.start.0..window.end().0);
    MMIO_32.into_iter().find(fits).unwrap_or(widest)
}

/// Places `memory_bytes` of RAM around `mmio_32`, and a window, where `reach` allows, below `1 << address_bits` and
/// where every host can map them.
///
/// # Errors
/// When a part of RAM has no place.
pub fn place(
    memory_bytes: u64,
    mmio_32: Range,
    reach: &IovaRanges,
    address_bits: u8,
) -> Result<Placement, PlacementError> {
    let end = (1u64 << address_bits.min(MAPPED_BITS)) - 1;
    let reach = reach.clone().within(std::slice::from_ref(&(0..=end)));
    let low = low_ram_end(memory_bytes, mmio_32).0;
    let no_room = |start: u64, len: u64| {
        let (first, last) = reach.gap_from(start);
        PlacementError {
            ram: len >> 20,
            start,
            first,
            last,
        }
    };
    // Low RAM begins at 0 or nowhere: real mode, the boot structures and every kernel need it there.
    let is_reached = |range: &Range| range.start.0 == 0;
    let mut ram = vec![
        reach
            .find(0, low)
            .filter(is_reached)
            .ok_or_else(|| no_room(0, low))?,
    ];
    let high = memory_bytes - low;
    if high > 0 {
        ram.push(
            reach
                .find(HIGH_RAM.0, high)
                .ok_or_else(|| no_room(HIGH_RAM.0, high))?,
        );
    }
    let mmio_64 = window(&ram, &reach, end);
    Ok(Placement { ram, mmio_64 })
}

/// The largest room for BARs above 4 GiB, in whole GiB and no more than half of the space; the lower one of
/// two.
fn window(ram: &[Range], reach: &IovaRanges, end: u64) -> Option<Range> {
    let most = (end / 2 + 1) / GIB * GIB;
    let room = |range: &RangeInclusive<u64>| {
        let inside = ram.iter().filter(|ram| range.contains(&ram.start.0));
        let behind = inside.map(|ram| ram.end().0).max().unwrap_or(0);
        let start = (*range.start())
            .max(HIGH_RAM.0)
            .max(behind)
            .checked_next_multiple_of(GIB)?;
        let len = range.end().checked_sub(start)?.saturating_add(1).min(most) / GIB * GIB;
        (len > 0).then_some(Range {
            start: GuestAddress(start),
            len,
        })
    };
    reach.0.iter().rev().filter_map(room).max_by_key(|room| room.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What VT-d of `bits` leaves.
    fn vtd(bits: u8) -> IovaRanges {
        IovaRanges::everything().within(&[0..=0xfedf_ffff, 0xfef0_0000..=(1 << bits) - 1])
    }

    fn window_of(memory_bytes: u64, reach: &IovaRanges, bits: u8) -> Option<(u64, u64)> {
        let window = place(memory_bytes, MMIO_32[0], reach, bits)
            .expect("it fits")
            .mmio_64?;
        Some((window.start.0, window.len))
    }

    #[test]
    fn small_memory_is_one_range_and_large_is_split_around_the_hole() {
        let ram = |bytes| place(bytes, MMIO_32[0], &vtd(48), 48).expect("it fits").ram;
        assert_eq!(ram(64 << 20), [Range::new(0, 64 << 20)]);
        assert_eq!(ram(3 * GIB), [Range::new(0, 3 * GIB)]);
        assert_eq!(
            ram(4 * GIB),
            [Range::new(0, 3 * GIB), Range::new(4 * GIB, 5 * GIB)]
        );
    }

    #[test]
    fn the_window_follows_ram_and_takes_half_of_the_space() {
        assert_eq!(
            window_of(4 * GIB + 4096, &IovaRanges::everything(), 40),
            Some((6 * GIB, 512 * GIB))
        );
    }

    #[test]
    fn the_window_ends_where_the_address_bits_or_the_iommu_do() {
        assert_eq!(
            window_of(399 * GIB, &IovaRanges::everything(), 39),
            Some((400 * GIB, 112 * GIB))
        );
        assert_eq!(window_of(399 * GIB, &vtd(39), 46), Some((400 * GIB, 112 * GIB)));
        assert_eq!(window_of(64 << 20, &vtd(39), 46), Some((4 * GIB, 508 * GIB)));
    }

    #[test]
    fn the_window_ends_where_four_levels_of_tables_do() {
        let amd = IovaRanges::everything().within(&[0..=0xfd_ffff_ffff, 1 << 40..=u64::MAX]);
        for bits in [48, 52] {
            assert_eq!(window_of(GIB, &amd, bits), Some((1 << 40, 1 << 47)));
        }
    }

    #[test]
    fn no_window_without_room() {
        assert_eq!(window_of(GIB, &IovaRanges::everything(), 32), None);
        assert_eq!(window_of(63 * GIB, &IovaRanges::everything(), 36), None);
        assert_eq!(
            window_of(GIB, &IovaRanges::everything(), 64).map(|(start, _)| start),
            Some(4 * GIB)
        );
    }

    #[test]
    fn ram_that_does_not_fit_below_a_reserved_range_goes_above_it() {
        let amd = IovaRanges::everything().within(&[0..=0xfd_ffff_ffff, 1 << 40..=(1 << 48) - 1]);
        let placed = place(1100 * GIB, MMIO_32[0], &amd, 48).expect("it fits above");
        assert_eq!(placed.ram[1], Range::new(1 << 40, (1 << 40) + 1097 * GIB));
        assert_eq!(window_of(8 * GIB, &amd, 48), Some((1 << 40, 1 << 47)));
    }

    #[test]
    fn ram_beyond_the_width_is_refused_with_the_range() {
        let error = place(600 * GIB, MMIO_32[0], &vtd(39), 48)
            .expect_err("39 bits are 512 GiB")
            .to_string();
        assert!(
            error.starts_with("--memory: 611328 MiB of RAM have no place from 0x100000000 on"),
            "{error}"
        );
        assert!(
            error.contains("does not map 0x8000000000-0xffffffffffffffff"),
            "{error}"
        );
    }

    #[test]
    fn a_reserved_range_in_low_ram_is_named() {
        let reach = IovaRanges::everything().within(&[0..=0x7b7f_ffff, 0x7c00_0000..=(1 << 39) - 1]);
        assert!(place(GIB, MMIO_32[0], &reach, 39).is_ok());
        let error = place(3 * GIB, MMIO_32[0], &reach, 39)
            .expect_err("RAM would cover it")
            .to_string();
        assert!(error.contains("0x7b800000-0x7bffffff"), "{error}");
    }

    #[test]
    fn devices_reach_what_all_of_them_reach() {
        let both = vtd(48).within(&[0..=(1 << 39) - 1]);
        assert_eq!(both, vtd(39));
        assert_eq!(vtd(39).within(&[]), vtd(39), "the kernel does not tell");
    }

    #[test]
    fn the_low_window_grows_as_far_as_its_bars_need() {
        let start = |sizes: &[Vec<u64>]| low_window(sizes).start.0;
        assert_eq!(start(&[]), 3 * GIB);
        assert_eq!(start(&[vec![256 << 20, 64 << 10], vec![128 << 20]]), 3 * GIB);
        assert_eq!(
            start(&[vec![64 << 10], vec![GIB, 64 << 10]]),
            2 * GIB,
            "1 GiB, and small ones behind it"
        );
        assert_eq!(start(&[vec![GIB], vec![GIB]]), GIB);
        assert_eq!(start(&[vec![2 * GIB]]), GIB, "nowhere is there room");
    }

    #[test]
    fn ram_that_the_low_window_takes_goes_above_4_gib() {
        let ram = place(3 * GIB, MMIO_32[1], &vtd(48), 48).expect("it fits").ram;
        assert_eq!(ram, [Range::new(0, 2 * GIB), Range::new(4 * GIB, 5 * GIB)]);
        let small = place(512 << 20, MMIO_32[2], &vtd(48), 48).expect("it fits").ram;
        assert_eq!(small, [Range::new(0, 512 << 20)]);
    }

    #[test]
    fn windows_cover_what_devices_cannot_be_given() {
        let windows = |reach: &IovaRanges, bits| -> Vec<(u64, u64)> {
            let windows = reach.windows(bits, MMIO_32[0]);
            windows
                .iter()
                .map(|window| (window.start.0, window.end().0))
                .collect()
        };
        assert_eq!(windows(&vtd(48), 48), [], "interrupt messages need none");
        assert_eq!(windows(&vtd(48), 39), []);
        let firmware = IovaRanges::everything().within(&[
            0..=0x7b7f_ffff,
            0x7c00_0000..=0xfedf_ffff,
            0xfef0_0000..=(1 << 48) - 1,
        ]);
        assert_eq!(windows(&firmware, 48), [(0x7b80_0000, 0x7c00_0000)]);
        let amd = IovaRanges::everything().within(&[
            0..=0xfedf_ffff,
            0xfef0_0000..=0xfc_ffff_ffff,
            1 << 40..=(1 << 48) - 1,
        ]);
        assert_eq!(windows(&amd, 48), [(0xfd_0000_0000, 1 << 40)]);
        assert_eq!(windows(&amd, 39), [], "beyond its addresses");
        let across = IovaRanges::everything().within(&[0..=0xafff_ffff, 0x1_4000_0000..=(1 << 48) - 1]);
        assert_eq!(
            windows(&across, 48),
            [(0xb000_0000, 0xc000_0000), (1 << 32, 0x1_4000_0000)]
        );
    }

    #[test]
    fn a_gap_on_top_costs_address_bits_and_one_below_does_not() {
        assert_eq!(vtd(48).usable_bits(46), 48);
        assert_eq!(vtd(39).usable_bits(46), 39);
        let amd = IovaRanges::everything().within(&[0..=0xfc_ffff_ffff, 1 << 40..=(1 << 48) - 1]);
        assert_eq!(amd.usable_bits(48), 48);
        assert_eq!(amd.usable_bits(39), 39, "the CPU reaches no window there");
        let top = IovaRanges::everything().within(&[0..=(1 << 47) - 1, (1 << 47) + GIB..=(1 << 48) - 1]);
        assert_eq!(top.usable_bits(46), 47);
    }
}

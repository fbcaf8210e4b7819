//! Which parts of a BAR can be mapped into the guest, and what answers for the rest.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use strait_devices::pci::bar::{BAR_COUNT, Bar, BarError, BarKind, Bars};
use strait_devices::pci::spec::header;
use strait_devices::region::{HostAddress, HostBacking, MappedPiece, Region};
use strait_devices::{Device, Effect};

use super::discover::ConfigRead;
use super::msix_structures::{MsixWindow, Part};
use crate::hardware::{Hardware, HardwareRegion, RegionInfo};
use crate::mapping::PAGE_SIZE;
use strait_devices::lock;
use strait_devices::warning::FirstOnly;

/// The BARs that the function's registers and regions agree on. One that cannot be is left out, with a
/// warning.
pub(crate) fn declared(hardware: &dyn Hardware, config: &(impl ConfigRead + ?Sized)) -> Bars {
    let mut declared = [None; BAR_COUNT];
    let mut index = 0;
    while index < BAR_COUNT {
        let kind = BarKind::from_register(config.u32(header::BAR0 + 4 * index as u16));
        let len_bytes = hardware.region(HardwareRegion::Bar(index as u8)).len_bytes;
        declared[index] = (len_bytes != 0).then_some(Bar { kind, len_bytes });
        // The upper half is no BAR of its own.
        let is_64_bit = declared[index].is_some() && matches!(kind, BarKind::Memory64 { .. });
        index += if is_64_bit { 2 } else { 1 };
    }
    loop {
        match Bars::new(declared) {
            Ok(bars) => return bars,
            Err(error) => {
                log::warn!("{}: {error}; the guest will not see it", hardware.name());
                let (BarError::Length { index, .. } | BarError::UpperHalf { index }) = error;
                declared[index] = None;
            }
        }
    }
}

/// The region behind one BAR: mapped where the host lets us and no table of MSI-X stands, trapped elsewhere.
pub(crate) fn region(
    hardware: &Arc<dyn Hardware>,
    index: u8,
    bar: Bar,
    msix: Option<MsixWindow>,
) -> Arc<Region> {
    let id = HardwareRegion::Bar(index);
    let traps: Vec<_> = msix.iter().flat_map(MsixWindow::traps).collect();
    let areas = match bar.kind {
        BarKind::Io => Vec::new(),
        _ => mappable(&hardware.region(id), bar.len_bytes, &traps),
    };
    let unmapped = FirstOnly::default();
    let piece = |area: &Range<u64>| match hardware.map(id, area.start, area.end - area.start) {
        Ok(mapping) => {
            let backing = Arc::new(OwnedPiece {
                mapping,
                _owner: Owner(Arc::clone(hardware)),
            });
            Some(MappedPiece {
                offset: area.start,
                backing,
            })
        }
        Err(error) => {
            // A driver may list thousands of areas.
            if unmapped.pass() {
                log::warn!(
                    "{}: cannot map {id} at {:#x}, it will be slow: {error}",
                    hardware.name(),
                    area.start
                );
            }
            None
        }
    };
    let pieces = areas.iter().filter_map(piece).collect();
    let device = TrappedBar {
        name: format!("{} {id}", hardware.name()),
        hardware: Arc::clone(hardware),
        id,
        msix,
        failed: FirstOnly::default(),
    };
    Region::with_pieces(Arc::new(device), bar.len_bytes, pieces)
}

/// The page-aligned, ascending, disjoint areas of a BAR that may be mapped. `traps` are never in them, nor
/// is a page that the BAR does not fill: the rest of it belongs to somebody else.
fn mappable(info: &RegionInfo, len_bytes: u64, traps: &[Range<u64>]) -> Vec<Range<u64>> {
    if !info.mappable {
        return Vec::new();
    }
    let inside = |&(offset, len): &(u64, u64)| offset..offset.saturating_add(len).min(len_bytes);
    let mut areas: Vec<Range<u64>> = match &info.sparse {
        Some(areas) => areas.iter().map(inside).collect(),
        None => std::iter::once(0..len_bytes).collect(),
    };
    areas.sort_by_key(|area| area.start);
    let mut pieces = Vec::new();
    let mut taken = 0;
    for area in areas {
        // Areas that touch stay apart: some drivers want each mapped exactly as they list it.
        let start = round_up(area.start.max(taken));
        let end = area.end / PAGE_SIZE * PAGE_SIZE;
        if start < end {
            taken = end;
            pieces.extend(without(start..end, traps));
        }
    }
    pieces
}

/// `area` without the pages that `traps` touch.
fn without(area: Range<u64>, traps: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut pieces = vec![area];
    for trap in traps {
        let (start, end) = (trap.start / PAGE_SIZE * PAGE_SIZE, round_up(trap.end));
        pieces = pieces
            .into_iter()
            .flat_map(|piece| [piece.start..piece.end.min(start), piece.start.max(end)..piece.end])
            .filter(|piece| piece.start < piece.end)
            .collect();
    }
    pieces
}

/// The next page boundary; the last one of the space stands for everything above.
fn round_up(address: u64) -> u64 {
    address
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX / PAGE_SIZE * PAGE_SIZE)
}

/// A mapping that goes before the function it is of: the kernel keeps a group busy while a BAR is mapped.
#[derive(Debug)]
struct OwnedPiece {
    mapping: Arc<dyn HostBacking>,
    _owner: Owner,
}

/// Whose mapping it is.
struct Owner(Arc<dyn Hardware>);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl HostBacking for OwnedPiece {
    fn host_address(&self) -> HostAddress {
        self.mapping.host_address()
    }

    fn len_bytes(&self) -> u64 {
        self.mapping.len_bytes()
    }
}

/// Answers for a BAR by reading and writing the device's file, but for the MSI-X structures.
struct TrappedBar {
    name: String,
    hardware: Arc<dyn Hardware>,
    id: HardwareRegion,
    msix: Option<MsixWindow>,
    failed: FirstOnly,
}

impl TrappedBar {
    fn report(&self, what: &str, offset: u64, error: &io::Error) {
        if self.failed.pass() {
            log::warn!(
                "cannot {what} {} at {offset:#x}: {error}; further failures are not reported",
                self.name
            );
        }
    }
}

/// The widths a CPU's load or store has.
fn is_plain(len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8)
}

impl Device for TrappedBar {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match self
            .msix
            .as_ref()
            .map_or(Part::Hardware, |msix| msix.part(offset, data.len()))
        {
            Part::Table(at, msix) => lock(msix).read_table(at, data),
            Part::Pending(at, msix) => lock(msix).read_pending(at, data),
            Part::Hardware if is_plain(data.len()) => {
                if let Err(error) = self.hardware.read(self.id, offset, data) {
                    self.report("read", offset, &error);
                    data.fill(0xff);
                }
            }
            Part::Hardware | Part::Mixed => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match self
            .msix
            .as_ref()
            .map_or(Part::Hardware, |msix| msix.part(offset, data.len()))
        {
            Part::Table(at, msix) => lock(msix).write_table(at, data),
            Part::Hardware if is_plain(data.len()) => {
                if let Err(error) = self.hardware.write(self.id, offset, data) {
                    self.report("write", offset, &error);
                }
            }
            Part::Pending(..) | Part::Hardware | Part::Mixed => {}
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(sparse: Option<Vec<(u64, u64)>>) -> RegionInfo {
        RegionInfo {
            len_bytes: 0x10000,
            mappable: true,
            sparse,
        }
    }

    #[test]
    fn a_whole_bar_is_one_piece() {
        assert_eq!(
            mappable(&info(None), 0x10000, &[]).as_slice(),
            std::slice::from_ref(&(0..0x10000))
        );
    }

    #[test]
    fn the_pages_of_table_and_pba_are_left_out() {
        let areas = mappable(&info(None), 0x10000, &[0x2000..0x2160, 0x3ff8..0x4008]);
        assert_eq!(areas, [0..0x2000, 0x5000..0x10000]);
    }

    #[test]
    fn table_and_pba_in_one_page_leave_one_hole() {
        let areas = mappable(&info(None), 0x4000, &[0x2000..0x2100, 0x2100..0x2108]);
        assert_eq!(areas, [0..0x2000, 0x3000..0x4000]);
    }

    #[test]
    fn a_bar_below_a_page_is_trapped() {
        assert!(mappable(&info(None), 0x100, &[]).is_empty());
    }

    #[test]
    fn a_bar_the_host_does_not_map_is_trapped() {
        assert!(
            mappable(
                &RegionInfo {
                    mappable: false,
                    ..info(None)
                },
                0x10000,
                &[]
            )
            .is_empty()
        );
    }

    #[test]
    fn sparse_areas_may_come_unsorted_overlapping_empty_or_too_long() {
        let sparse = vec![
            (0x8000, u64::MAX),
            (0x1000, 0x2000),
            (0x2000, 0x2000),
            (0x6000, 0),
            (0x7010, 0x10),
        ];
        let areas = mappable(&info(Some(sparse)), 0x10000, &[]);
        assert_eq!(areas, [0x1000..0x3000, 0x3000..0x4000, 0x8000..0x10000]);
    }

    #[test]
    fn an_empty_sparse_list_maps_nothing() {
        assert!(mappable(&info(Some(Vec::new())), 0x10000, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn areas_are_whole_pages_inside_the_bar_and_outside_the_traps(
            sparse in prop::collection::vec((any::<u64>(), any::<u64>()), 0..6),
            near in prop::collection::vec((0u64..0x20000, 0u64..0x20000), 0..6),
            traps in prop::collection::vec((0u64..0x10000, 1u64..0x3000), 0..3),
        ) {
            let traps: Vec<_> = traps.into_iter().map(|(start, len)| start..start + len).collect();
            let info = info(Some([sparse, near].concat()));
            let areas = mappable(&info, 0x10000, &traps);
            for (n, area) in areas.iter().enumerate() {
                prop_assert!(area.start % PAGE_SIZE == 0 && area.end % PAGE_SIZE == 0 && area.start < area.end);
                prop_assert!(area.end <= 0x10000);
                prop_assert!(areas[..n].iter().all(|other| other.end <= area.start));
                prop_assert!(traps.iter().all(|trap| trap.end <= area.start || area.end <= trap.start));
            }
        }
    }
}

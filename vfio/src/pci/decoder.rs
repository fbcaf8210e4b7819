//! What a function decodes, for those who ask.

use std::sync::Arc;

use strait_devices::Place;
use strait_devices::pci::bar::{BAR_COUNT, Bar, BarKind, Places};
use strait_devices::region::Region;

/// A BAR or the ROM as it is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// 0 to 5 for a BAR; [`ROM`](Self::ROM).
    pub index: u8,
    /// Whether it decodes memory, of which width, or ports.
    pub kind: BarKind,
    /// Bytes it answers for.
    pub len_bytes: u64,
    /// Where it answers; nowhere while the guest does not let it.
    pub place: Option<Place>,
    /// Accesses of the guest that no mapping served, since the guest started.
    pub trapped: u64,
}

impl Decoder {
    /// The number of the ROM, as VFIO has it (VFIO_PCI_ROM_REGION_INDEX).
    pub const ROM: u8 = BAR_COUNT as u8;
}

/// Those of BARs, and the one of a ROM behind them.
pub(super) fn all(
    regions: &[Option<Arc<Region>>; BAR_COUNT],
    bars: &[Option<Bar>; BAR_COUNT],
    places: &Places,
    rom: Option<&Arc<Region>>,
    rom_place: Option<Place>,
) -> Vec<Decoder> {
    let decoder = |index, kind, region: &Region, place| Decoder {
        index,
        kind,
        len_bytes: region.len_bytes(),
        place,
        trapped: region.trapped_accesses(),
    };
    let of_bar = |index: usize| {
        let (bar, region) = (bars[index]?, regions[index].as_ref()?);
        Some(decoder(index as u8, bar.kind, region, places[index]))
    };
    let kind = BarKind::Memory32 { prefetchable: false };
    let of_rom = rom.map(|region| decoder(Decoder::ROM, kind, region, rom_place));
    (0..BAR_COUNT).filter_map(of_bar).chain(of_rom).collect()
}

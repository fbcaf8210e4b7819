//! Where a function's MSI-X structures stand in its BARs, and the model that answers there.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use strait_devices::irq::MsiRouter;
use strait_devices::pci::bar::{BarKind, Bars};
use strait_devices::pci::capability::Msix;
use strait_devices::pci::capability::msix::{
    BAR_INDICATOR, ENTRY_LEN, MESSAGE_CONTROL, PENDING, TABLE, TABLE_SIZE,
};

use super::discover::{Capability, ConfigRead};
use crate::hardware::{Hardware, InterruptKind};
use crate::interrupt::VectorSet;
use crate::mapping::PAGE_SIZE;

/// The structures of a function whose MSI-X is usable.
pub(crate) struct MsixStructures {
    count: u16,
    table: Located,
    pending: Located,
}

/// Where the offsets of the capability's registers end.
const OFFSETS_END: u64 = 1 << 32;

/// A range of a BAR.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    bar: u8,
    range: Range<u64>,
}

/// MSI-X that cannot work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MsixError {
    /// The table is not wholly inside its BAR.
    #[error("its MSI-X table at {offset:#x} of BAR {bar} is not inside that BAR")]
    Outside {
        /// Number of the BAR it is in.
        bar: u8,
        /// Bytes from the BAR's start.
        offset: u64,
    },
    /// The table is in ports, or in a BAR that does not exist.
    #[error("its MSI-X table is in BAR {0}, which is no memory")]
    NoMemory(u8),
    /// The kernel knows of no vectors.
    #[error("VFIO gives it no MSI-X vectors")]
    NoVectors,
}

impl MsixStructures {
    /// Reads the capability and checks it against the BARs.
    ///
    /// Without its table MSI-X cannot work. The pending bits are ours, wherever the device says they are: where
    /// that is no place for them, they get one beside the table.
    pub(crate) fn new(
        hardware: &dyn Hardware,
        config: &(impl ConfigRead + ?Sized),
        capability: Capability,
        bars: &Bars,
    ) -> Result<Self, MsixError> {
        let register = |at| config.u32(capability.offset + at);
        let count = (config.u16(capability.offset + MESSAGE_CONTROL) & TABLE_SIZE) + 1;
        if hardware.interrupt(InterruptKind::Msix).count == 0 {
            return Err(MsixError::NoVectors);
        }
        let table = Located::new(register(TABLE), u64::from(count) * ENTRY_LEN);
        let room = memory_len(bars, table.bar).ok_or(MsixError::NoMemory(table.bar))?;
        if table.range.end > room {
            let (bar, offset) = (table.bar, table.range.start);
            return Err(MsixError::Outside { bar, offset });
        }
        // One bit for each vector, in quadwords.
        let said = Located::new(register(PENDING), u64::from(count).div_ceil(64) * 8);
        let is_inside = memory_len(bars, said.bar).is_some_and(|len| said.range.end <= len);
        let pending = match is_inside && !said.overlaps(&table) {
            true => said,
            false => move_pending(hardware.name(), &said, &table, room),
        };
        Ok(Self {
            count,
            table,
            pending,
        })
    }

    /// The register that tells the guest where its pending bits are.
    pub(crate) fn pending_register(&self) -> u32 {
        self.pending.register()
    }

    /// The model, with every vector masked.
    pub(crate) fn model(&self, hardware: &Arc<dyn Hardware>, router: Arc<dyn MsiRouter>) -> Arc<Mutex<Msix>> {
        let binder = Arc::new(VectorSet::new(Arc::clone(hardware), InterruptKind::Msix));
        let model = Msix::new(self.count, router, binder).expect("11 bits plus one are at most 2048");
        Arc::new(Mutex::new(model))
    }

    /// The part of the structures in BAR `bar`.
    pub(crate) fn window(&self, bar: u8, model: &Arc<Mutex<Msix>>) -> Option<MsixWindow> {
        let in_bar = |located: &Located| (located.bar == bar).then(|| located.range.clone());
        let (table, pending) = (in_bar(&self.table), in_bar(&self.pending));
        (table.is_some() || pending.is_some()).then(|| MsixWindow {
            table,
            pending,
            model: Arc::clone(model),
        })
    }
}

impl Located {
    /// `len` bytes where a register of the capability says.
    fn new(register: u32, len: u64) -> Self {
        let offset = u64::from(register & !BAR_INDICATOR);
        Self {
            bar: (register & BAR_INDICATOR) as u8,
            range: offset..offset + len,
        }
    }

    fn register(&self) -> u32 {
        let offset =
            u32::try_from(self.range.start).expect("it came from such a register, or was placed below 4 GiB");
        offset | u32::from(self.bar)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.bar == other.bar && self.range.start < other.range.end && other.range.start < self.range.end
    }
}

/// The length of BAR `index` if it is memory.
fn memory_len(bars: &Bars, index: u8) -> Option<u64> {
    let declared = bars.declared().get(usize::from(index)).copied().flatten()?;
    (declared.kind != BarKind::Io).then_some(declared.len_bytes)
}

/// The pending bits of a device whose own place for them, `said`, cannot be.
fn move_pending(name: &str, said: &Located, table: &Located, room: u64) -> Located {
    let len = said.range.end - said.range.start;
    let range = beside(&table.range, len, room.min(OFFSETS_END));
    log::info!(
        "{name}: its MSI-X pending bit array cannot be at {:#x} of BAR {}; the guest finds it at {:#x} of BAR {}",
        said.range.start,
        said.bar,
        range.start,
        table.bar
    );
    let bar = table.bar;
    Located { bar, range }
}

/// A place for `len` bytes in the BAR of `room` bytes that holds `table`: behind or before it, in its own pages if
/// that goes, for a device has no other registers there (PCIe 6.0 §7.7.2). Where the table fills the BAR it is on the
/// table, which wins: drivers live without the pending bits, but not without vectors.
fn beside(table: &Range<u64>, len: u64, room: u64) -> Range<u64> {
    let behind = table.end..table.end + len;
    let before = table.start.checked_sub(len).map(|start| start..table.start);
    let pages = table.start / PAGE_SIZE * PAGE_SIZE..table.end.next_multiple_of(PAGE_SIZE).min(room);
    [pages, 0..room]
        .into_iter()
        .find_map(|within| {
            let fits = |place: &Range<u64>| within.start <= place.start && place.end <= within.end;
            [Some(behind.clone()), before.clone()]
                .into_iter()
                .flatten()
                .find(fits)
        })
        .unwrap_or(table.start..table.start + len)
}

/// The MSI-X structures inside one BAR.
pub(crate) struct MsixWindow {
    table: Option<Range<u64>>,
    pending: Option<Range<u64>>,
    model: Arc<Mutex<Msix>>,
}

/// What an access to a BAR touches.
pub(crate) enum Part<'a> {
    /// Only the table, at this offset in it.
    Table(u64, &'a Mutex<Msix>),
    /// Only the pending bits, at this offset in them.
    Pending(u64, &'a Mutex<Msix>),
    /// Neither: it is the hardware's to answer.
    Hardware,
    /// An edge of one of them.
    Mixed,
}

impl MsixWindow {
    /// Ranges that the guest must never reach directly.
    pub(crate) fn traps(&self) -> impl Iterator<Item = Range<u64>> {
        self.table.iter().chain(&self.pending).cloned()
    }

    /// Where `len` bytes at `offset` of the BAR fall. The table wins where a device overlaps the two.
    pub(crate) fn part(&self, offset: u64, len: usize) -> Part<'_> {
        let end = offset.saturating_add(len as u64);
        let touches = |range: &Range<u64>| offset < range.end && range.start < end;
        let is_inside = |range: &Range<u64>| range.start <= offset && end <= range.end;
        let first = [(true, &self.table), (false, &self.pending)]
            .into_iter()
            .filter_map(|(is_table, range)| Some((is_table, range.as_ref()?)))
            .find(|(_, range)| touches(range));
        match first {
            None => Part::Hardware,
            Some((_, range)) if !is_inside(range) => Part::Mixed,
            Some((true, range)) => Part::Table(offset - range.start, &self.model),
            Some((false, range)) => Part::Pending(offset - range.start, &self.model),
        }
    }
}

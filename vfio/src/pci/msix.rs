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

/// The structures of a function whose MSI-X is usable.
pub(crate) struct MsixLayout {
    count: u16,
    table: Located,
    pending: Located,
}

/// A range of a BAR.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    bar: u8,
    range: Range<u64>,
}

/// A structure that does not lie where the capability says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MsixError {
    /// The structure is not wholly inside a memory BAR.
    #[error("its MSI-X {what} at {offset:#x} of BAR {bar} is not inside that BAR")]
    Outside {
        /// Table or pending bits.
        what: &'static str,
        /// Which BAR.
        bar: u8,
        /// Where in it.
        offset: u64,
    },
    /// The kernel knows of no vectors.
    #[error("VFIO gives it no MSI-X vectors")]
    NoVectors,
}

impl MsixLayout {
    /// Reads the capability and checks it against the BARs.
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
        let table_len = u64::from(count) * ENTRY_LEN;
        // One bit for each vector, in quadwords.
        let pending_len = u64::from(count).div_ceil(64) * 8;
        let table = locate("table", register(TABLE), table_len, bars)?;
        let pending = locate("pending bit array", register(PENDING), pending_len, bars)?;
        Ok(Self {
            count,
            table,
            pending,
        })
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

fn locate(what: &'static str, register: u32, len: u64, bars: &Bars) -> Result<Located, MsixError> {
    let bar = (register & BAR_INDICATOR) as u8;
    let offset = u64::from(register & !BAR_INDICATOR);
    let declared = bars.declared().get(usize::from(bar)).copied().flatten();
    let fits =
        declared.is_some_and(|declared| declared.kind != BarKind::Io && offset + len <= declared.len_bytes);
    let range = offset..offset + len;
    fits.then_some(Located { bar, range })
        .ok_or(MsixError::Outside { what, bar, offset })
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
    /// Neither.
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

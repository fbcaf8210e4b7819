//! What was measured of each VMM.

use std::collections::BTreeMap;

use serde::Serialize;

use super::table::Table;
use crate::guest::Vmm;

/// Results by the name of the VMM that they are of.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures<R> {
    vmms: BTreeMap<&'static str, R>,
}

impl<R: Default> Figures<R> {
    /// The results of one, to add to.
    pub(super) fn of(&mut self, vmm: Vmm) -> &mut R {
        self.vmms.entry(vmm.name()).or_default()
    }

    /// Begins a table of both.
    pub(super) fn table(&self, title: &str) -> Table<'_, R> {
        let of = |vmm: Vmm| self.vmms.get(vmm.name());
        Table::begin(title, of(Vmm::Strait), of(Vmm::Qemu))
    }
}

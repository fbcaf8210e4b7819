//! What was measured of each VMM.

use std::collections::BTreeMap;

/// Results by the name of the VMM that they are of.
#[derive(Debug, Default)]
pub struct Figures<R> {
    vmms: BTreeMap<String, R>,
}

impl<R: Default> Figures<R> {
    /// The results of one, to add to.
    pub fn of(&mut self, vmm: &str) -> &mut R {
        self.vmms.entry(vmm.to_owned()).or_default()
    }
}

impl<R> Figures<R> {
    /// All, each with its VMM's name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &R)> + Clone {
        self.vmms.iter().map(|(vmm, runs)| (vmm.as_str(), runs))
    }
}

//! How a function looks to the guest, where that is not up to the hardware.

use std::sync::Arc;

/// What the user and the place in the machine make of a function. The default is the function as it is,
/// alone in its slot.
#[derive(Clone, Debug, Default)]
pub struct Appearance {
    /// What becomes of the expansion ROM.
    pub rom: RomSource,
    /// Other functions stand beside it in its slot.
    pub is_multi_function: bool,
    /// The guest finds no MSI-X capability, and its driver falls back to MSI or the wire.
    pub hides_msix: bool,
}

/// What the guest finds as the function's ROM.
#[derive(Clone, Debug, Default)]
pub enum RomSource {
    /// The function's own, if it has one that can be read.
    #[default]
    Hardware,
    /// The guest sees no ROM.
    Hidden,
    /// The guest sees these bytes.
    Bytes(Arc<[u8]>),
}

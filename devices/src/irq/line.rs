//! A wire to an interrupt controller's pin.

/// The wire. Edge-triggered inputs act on a rising level, level-triggered ones for as long as it is high.
pub trait IrqLine: Send + Sync {
    /// Raises (`true`) or lowers the wire.
    fn set_level(&self, high: bool);
}

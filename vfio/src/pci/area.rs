//! A part of configuration space with more behind it than the bytes of the overlay.

use std::ops::Range;

use super::msix_structures::MsixWindow;
use super::overlay::Overlay;

/// Registers that a capability, or the header, answers for itself.
///
/// The overlay has taken a read or a write before an area hears of it; `at` counts from the start of its range,
/// and an access reaches it cut to the part that lies in the range.
pub(super) trait Area: Send {
    /// Registers it answers for. Ranges of one function's areas are disjoint; an empty one is never asked.
    fn range(&self) -> Range<u16>;

    /// What the guest reads; without an answer of its own, what the overlay has.
    fn read(&self, _at: u16, _data: &mut [u8]) {}

    /// Follows a guest's write; what it asks of the whole function comes back.
    fn write(&mut self, _overlay: &mut Overlay, _at: u16, _data: &[u8]) -> Request {
        Request::Nothing
    }

    /// Back to the state after a reset of the function. The overlay is reset before.
    fn reset(&mut self) {}

    /// The guest has the function interrupt by messages, masked or not.
    fn has_messages(&self) -> bool {
        false
    }

    /// A write that is about to turn messages on.
    fn turns_messages_on(&self, _at: u16, _data: &[u8]) -> bool {
        false
    }

    /// The guest put the function into a state in which it decodes nothing and does no DMA.
    fn is_asleep(&self) -> bool {
        false
    }

    /// What must be trapped in BAR `bar`.
    fn window(&self, _bar: u8) -> Option<MsixWindow> {
        None
    }
}

/// What a write asks of the function beyond its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing beyond the register.
    Nothing,
    /// A function level reset.
    Reset,
}

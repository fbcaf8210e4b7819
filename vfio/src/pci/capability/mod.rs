//! The capabilities in the first 256 bytes, a file for each that needs anything: how long it is, what the guest
//! sees of it, and what answers in it. One that is not here is read from the hardware and written nowhere.

mod advanced_features;
mod enhanced_allocation;
mod express;
pub(super) mod kind;
mod msi;
mod msix;
mod pci_x;
mod power;
mod subsystem;
mod vendor;
mod vpd;

use super::discover::Capability;
use super::overlay::Overlay;
use super::spec::capability;
use kind::{Context, Kind, Taken};

/// Every kind that is known.
const KINDS: [Kind; 10] = [
    advanced_features::KIND,
    enhanced_allocation::KIND,
    express::KIND,
    msi::KIND,
    msix::KIND,
    pci_x::KIND,
    power::KIND,
    subsystem::KIND,
    vendor::KIND,
    vpd::KIND,
];

/// Bytes that capability `id` at `offset` needs, and those it takes where there is room.
pub(super) fn length(snapshot: &[u8], id: u8, offset: u16) -> (u16, u16) {
    match find(id) {
        Some(kind) => (kind.length)(snapshot, offset),
        None => (capability::HEADER_LEN, capability::HEADER_LEN),
    }
}

/// Takes a capability over: its patches go into `overlay`. One that has no room, or that is a second one of a
/// kind of which there is one, is hidden; `before` are those ahead of it in the list.
pub(super) fn take(
    context: &Context<'_>,
    overlay: &mut Overlay,
    found: Capability,
    before: &[Capability],
) -> Taken {
    let is_second = || before.iter().any(|other| other.is_whole && other.id == found.id);
    match find(found.id) {
        _ if !found.is_whole => Taken::hidden(),
        None => Taken::shown(),
        Some(kind) if kind.is_single && is_second() => Taken::hidden(),
        Some(kind) => (kind.take)(context, overlay, found),
    }
}

fn find(id: u8) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.id == id)
}

//! The extended capabilities the guest sees, in a list of their own.

use strait_devices::pci::spec::extended_capability_id;

use super::discover::ExtendedCapability;
use super::overlay::Overlay;
use super::spec::{self, extended};

/// Extended capabilities the guest does not see. Virtual functions, alternative routing ids and resizable
/// BARs belong to the host, which sized and placed them; address translation and process ids belong to the
/// host's IOMMU driver.
const HIDDEN: [u16; 7] = [
    extended_capability_id::SRIOV,
    extended_capability_id::ARI,
    extended_capability_id::RESIZABLE_BAR,
    extended_capability_id::VF_RESIZABLE_BAR,
    spec::extended_capability_id::ATS,
    spec::extended_capability_id::PAGE_REQUEST,
    spec::extended_capability_id::PASID,
];

/// Links those that are shown and blanks the others; a vendor's own is the hardware's.
pub(super) fn patch(overlay: &mut Overlay, found: &[ExtendedCapability]) {
    let is_hidden = |found: &&ExtendedCapability| HIDDEN.contains(&found.id);
    for hidden in found.iter().filter(is_hidden) {
        overlay.replace(hidden.offset, &vec![0; extent(found, *hidden)]);
    }
    let visible: Vec<_> = found.iter().filter(|found| !is_hidden(found)).collect();
    let next = visible.iter().skip(1).map(|found| found.offset).chain([0]);
    for (found, next) in visible.iter().zip(next) {
        overlay.replace(found.offset, &extended_header(found.id, found.version, next));
    }
    for vendor in visible
        .iter()
        .filter(|found| found.id == spec::extended_capability_id::VENDOR)
    {
        let body = usize::from(extended::HEADER_LEN) + VENDOR_HEADER_LEN;
        let room = extent(found, **vendor);
        // One without room for its header has no length either, at worst at the end of the space.
        if room <= body {
            continue;
        }
        let len = room.min(vendor_length(overlay, vendor.offset));
        if len > body {
            overlay.forward(vendor.offset + body as u16, &vec![0xff; len - body]);
        }
    }
    // The list begins at 0x100 whatever stands there: id 0 is the null capability, which only links on.
    let first = visible.first().map_or(0, |found| found.offset);
    if first != extended::FIRST {
        let version = u8::from(first != 0);
        overlay.replace(extended::FIRST, &extended_header(0, version, first));
    }
}

/// Bytes of a vendor specific extended capability's own header: id, revision and length (§7.9.5).
const VENDOR_HEADER_LEN: usize = 4;

fn vendor_length(overlay: &Overlay, offset: u16) -> usize {
    usize::from(overlay.copy().u16(offset + 6) >> 4)
}

/// Bytes from an extended capability to the next one, or to the end of the space.
fn extent(all: &[ExtendedCapability], of: ExtendedCapability) -> usize {
    let next = all
        .iter()
        .map(|found| found.offset)
        .filter(|&at| at > of.offset)
        .min();
    usize::from(next.unwrap_or(extended::END) - of.offset)
}

fn extended_header(id: u16, version: u8, next: u16) -> [u8; 4] {
    (u32::from(id) | u32::from(version) << 16 | u32::from(next) << 20).to_le_bytes()
}

/// No extended capability at all, as on a conventional bus.
pub(super) fn hide(overlay: &mut Overlay) {
    overlay.replace(extended::FIRST, &[0; (extended::END - extended::FIRST) as usize]);
}

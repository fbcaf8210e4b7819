//! The patch table of a function: what its configuration space is made of, and who answers for each part.

use strait_devices::pci::capability::msix;
use strait_devices::pci::spec::{capability_id, command, extended_capability_id, header, status};

use super::config::Overlay;
use super::discover::{
    Capability, ConfigRead, ExtendedCapability, Walk, capabilities, extended_capabilities,
};
use super::spec::{self, advanced_features, capability, express, extended, power, vendor};
use crate::hardware::{Hardware, InterruptKind};

/// Offsets of the capabilities that are more than patched bytes.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The wire of a function whose INTx the host delivers, 1 to 4 for INTA to INTD.
    pub(crate) intx_pin: Option<u8>,
    pub(crate) power: Option<u16>,
    pub(crate) msi: Option<Capability>,
    pub(crate) msix: Option<Capability>,
    /// What its register for the place of the pending bits says.
    pub(crate) msix_pending: u32,
    pub(crate) vpd: Option<u16>,
    pub(crate) express: Option<u16>,
    /// The Express capability of a function that can reset itself.
    pub(crate) express_flr: Option<u16>,
    /// The advanced features capability of such a function.
    pub(crate) advanced_flr: Option<u16>,
    /// Nothing was wrong with the capability lists.
    pub(crate) is_sound: bool,
}

/// Command bits a guest may set. What they do is up to [`super::Passthrough`]: none of them is forwarded
/// as it is.
const COMMAND_WRITABLE: u16 = command::IO
    | command::MEMORY
    | command::BUS_MASTER
    | command::PARITY
    | command::SERR
    | command::INTX_DISABLE;

/// Extended capabilities the guest does not see. Virtual functions, alternative routing ids and resizable
/// BARs belong to the host, which sized and placed them; address translation and process ids belong to the
/// host's IOMMU driver.
const HIDDEN_EXTENDED: [u16; 7] = [
    extended_capability_id::SRIOV,
    extended_capability_id::ARI,
    extended_capability_id::RESIZABLE_BAR,
    extended_capability_id::VF_RESIZABLE_BAR,
    spec::extended_capability_id::ATS,
    spec::extended_capability_id::PAGE_REQUEST,
    spec::extended_capability_id::PASID,
];

/// The capabilities of a snapshot, before it is decided which of them the guest sees.
pub(crate) fn find(hardware: &dyn Hardware, snapshot: &[u8]) -> (Layout, Walk<Capability>) {
    let walk = capabilities(snapshot);
    let first = |id| {
        walk.found
            .iter()
            .find(|found| found.id == id && found.is_whole)
            .copied()
    };
    let express = first(capability_id::EXPRESS).map(|found| found.offset);
    let express_can = |at: &u16| snapshot.u32(at + express::DEVICE_CAPABILITIES) & express::FLR_CAPABLE != 0;
    let advanced = first(spec::capability_id::ADVANCED_FEATURES).map(|found| found.offset);
    let advanced_can =
        |at: &u16| snapshot.u8(at + advanced_features::CAPABILITIES) & advanced_features::FLR_CAPABLE != 0;
    let has_intx = hardware.interrupt(InterruptKind::Intx).count != 0;
    let has_msi = hardware.interrupt(InterruptKind::Msi).count != 0;
    let pin = snapshot.u8(header::INTERRUPT_PIN);
    let layout = Layout {
        intx_pin: Some(pin).filter(|pin| has_intx && (1..=4).contains(pin)),
        power: first(capability_id::POWER).map(|found| found.offset),
        msi: first(capability_id::MSI).filter(|_| has_msi),
        msix: first(capability_id::MSIX),
        msix_pending: 0,
        vpd: first(spec::capability_id::VPD).map(|found| found.offset),
        express,
        express_flr: express.filter(express_can),
        advanced_flr: advanced.filter(advanced_can),
        is_sound: walk.is_sound,
    };
    (layout, walk)
}

/// The overlay that shows the guest `snapshot` as `layout` has it.
pub(crate) fn overlay(
    snapshot: &[u8],
    layout: &mut Layout,
    walk: &Walk<Capability>,
    is_multi_function: bool,
) -> Overlay {
    let mut overlay = Overlay::new(snapshot);
    patch_header(&mut overlay, layout);
    patch_header_type(&mut overlay, snapshot, is_multi_function);
    let (visible, hidden) = split(layout, walk);
    link(&mut overlay, &visible);
    for found in &hidden {
        overlay.replace(found.offset, &vec![0; usize::from(found.len)]);
    }
    for found in &visible {
        patch_capability(&mut overlay, snapshot, *found);
    }
    if let Some(found) = layout.msix {
        overlay.replace(found.offset + msix::PENDING, &layout.msix_pending.to_le_bytes());
    }
    if walk.is_sound {
        forward_unowned(&mut overlay, walk);
    }
    if layout.express.is_some() && snapshot.len() > usize::from(extended::FIRST) {
        let walk = extended_capabilities(snapshot);
        layout.is_sound &= walk.is_sound;
        patch_extended(&mut overlay, &walk.found);
    } else {
        overlay.replace(extended::FIRST, &[0; (extended::END - extended::FIRST) as usize]);
    }
    overlay
}

fn patch_header(overlay: &mut Overlay, layout: &Layout) {
    overlay.freeze(0, header::STATUS);
    overlay.freeze(header::REVISION_ID, spec::header::LEN - header::REVISION_ID);
    overlay.replace(header::COMMAND, &[0, 0]);
    overlay.allow_write(header::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
    overlay.allow_write(header::CACHE_LINE_SIZE, &[0xff]);
    overlay.replace(spec::header::BIST, &[0]);
    overlay.replace(header::ROM_BAR, &[0; spec::header::ROM_BAR_LEN as usize]);
    overlay.replace(header::INTERRUPT_LINE, &[0]);
    overlay.allow_write(header::INTERRUPT_LINE, &[0xff]);
    overlay.replace(header::INTERRUPT_PIN, &[layout.intx_pin.unwrap_or(0)]);
}

/// Whether there are more functions is up to the slot that the guest finds this one in.
fn patch_header_type(overlay: &mut Overlay, snapshot: &[u8], is_multi_function: bool) {
    let alone = snapshot.u8(header::HEADER_TYPE) & !header::MULTI_FUNCTION;
    let bit = if is_multi_function {
        header::MULTI_FUNCTION
    } else {
        0
    };
    overlay.replace(header::HEADER_TYPE, &[alone | bit]);
}

/// The capabilities the guest sees, and those it does not: what it must not use, what has no room, and
/// second ones of a kind there is one of.
fn split(layout: &Layout, walk: &Walk<Capability>) -> (Vec<Capability>, Vec<Capability>) {
    let is_visible = |found: &Capability| match found.id {
        capability_id::MSI => layout.msi == Some(*found),
        capability_id::MSIX => layout.msix == Some(*found),
        capability_id::POWER => layout.power == Some(found.offset),
        capability_id::EXPRESS => layout.express == Some(found.offset),
        // Fixed BARs, where there are no registers to place them.
        spec::capability_id::ENHANCED_ALLOCATION => false,
        _ => found.is_whole,
    };
    walk.found.iter().copied().partition(is_visible)
}

/// Links the visible capabilities in their order.
fn link(overlay: &mut Overlay, visible: &[Capability]) {
    let next = visible.iter().skip(1).map(|found| found.offset as u8).chain([0]);
    for (found, next) in visible.iter().zip(next) {
        overlay.replace(found.offset, &[found.id, next]);
    }
    let first = visible.first().map_or(0, |found| found.offset as u8);
    overlay.replace(header::CAPABILITIES, &[first]);
    let has_list = if visible.is_empty() {
        0
    } else {
        status::CAPABILITIES
    };
    overlay.patch(
        header::STATUS,
        &status::CAPABILITIES.to_le_bytes(),
        &has_list.to_le_bytes(),
    );
}

fn patch_capability(overlay: &mut Overlay, snapshot: &[u8], found: Capability) {
    let Capability { id, offset, len, .. } = found;
    let body = offset + capability::HEADER_LEN;
    let body_len = len - capability::HEADER_LEN;
    match id {
        capability_id::POWER => patch_power(overlay, snapshot, offset),
        capability_id::EXPRESS => patch_express(overlay, snapshot, offset),
        // The model in front of the overlay answers; the hardware is not asked.
        capability_id::MSI => overlay.freeze(body, body_len),
        capability_id::MSIX => {
            overlay.freeze(body, body_len);
            overlay.replace(offset + msix::MESSAGE_CONTROL, &[0, 0]);
        }
        spec::capability_id::ADVANCED_FEATURES => {
            overlay.freeze(body, body_len);
            overlay.replace(offset + advanced_features::CONTROL, &[0, 0]);
        }
        spec::capability_id::VENDOR if len > vendor::BODY => {
            overlay.forward(
                offset + vendor::BODY,
                &vec![0xff; usize::from(len - vendor::BODY)],
            );
        }
        _ => {}
    }
}

/// The guest sees power states, the hardware stays in D0: in any other it would answer no access, and the
/// host's power management is not the guest's.
fn patch_power(overlay: &mut Overlay, snapshot: &[u8], offset: u16) {
    overlay.freeze(
        offset + capability::HEADER_LEN,
        power::LEN - capability::HEADER_LEN,
    );
    let capabilities = snapshot.u16(offset + power::CAPABILITIES) & !power::PME_SUPPORT;
    overlay.replace(offset + power::CAPABILITIES, &capabilities.to_le_bytes());
    overlay.replace(offset + power::CONTROL, &[power::NO_SOFT_RESET as u8, 0, 0, 0]);
    overlay.allow_write(offset + power::CONTROL, &power::STATE.to_le_bytes());
}

/// The function stands behind a root port. How it talks to the host's port (payload size, error reports,
/// link power) is the host's; what only makes it faster or slower is the guest's.
fn patch_express(overlay: &mut Overlay, snapshot: &[u8], offset: u16) {
    let capabilities = snapshot.u16(offset + express::CAPABILITIES);
    overlay.freeze(offset + express::CAPABILITIES, 2);
    if capabilities & express::TYPE == express::TYPE_ROOT_COMPLEX_ENDPOINT {
        let endpoint = capabilities & !express::TYPE;
        overlay.replace(offset + express::CAPABILITIES, &endpoint.to_le_bytes());
    }
    overlay.freeze(offset + express::DEVICE_CAPABILITIES, 4);
    let control = offset + express::DEVICE_CONTROL;
    overlay.freeze(control, 2);
    overlay.allow_write(control, &express::DEVICE_CONTROL_WRITABLE.to_le_bytes());
    overlay.forward(control, &express::DEVICE_CONTROL_FORWARDED.to_le_bytes());
    if capabilities & express::VERSION >= 2 {
        let control = offset + express::DEVICE_CONTROL_2;
        overlay.freeze(control, 2);
        overlay.allow_write(control, &express::DEVICE_CONTROL_2_WRITABLE.to_le_bytes());
        overlay.forward(control, &express::DEVICE_CONTROL_2_FORWARDED.to_le_bytes());
    }
}

/// Bytes that belong to no capability are registers of the device's own, which its driver may need.
fn forward_unowned(overlay: &mut Overlay, walk: &Walk<Capability>) {
    let mut is_owned = [false; capability::END as usize];
    is_owned[..usize::from(spec::header::LEN)].fill(true);
    for found in &walk.found {
        let next = walk
            .found
            .iter()
            .map(|other| other.offset)
            .filter(|&at| at > found.offset)
            .min();
        // How long a capability of an unknown kind is, only its neighbour limits.
        let end = match found.len {
            capability::HEADER_LEN => next.unwrap_or(capability::END),
            len => found.offset + len,
        };
        is_owned[usize::from(found.offset)..usize::from(end)].fill(true);
    }
    for (register, _) in (0..).zip(is_owned).filter(|(_, is_owned)| !is_owned) {
        overlay.forward(register, &[0xff]);
    }
}

/// Shows the extended capabilities that are not hidden, in a list of their own.
fn patch_extended(overlay: &mut Overlay, found: &[ExtendedCapability]) {
    let is_hidden = |found: &&ExtendedCapability| HIDDEN_EXTENDED.contains(&found.id);
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

//! The configuration space that a guest finds: the overlay, and the areas that answer for themselves.

use std::sync::Arc;

use strait_devices::Place;
use strait_devices::irq::MsiRouter;
use strait_devices::pci::bar::{Bars, Places};
use strait_devices::pci::rom_bar::RomBar;
use strait_devices::pci::spec::{capability_id, header, status};

use super::area::{Area, Request};
use super::capability;
use super::capability::kind::Context;
use super::discover::{Capability, Walk, capabilities, extended_capabilities};
use super::extended;
use super::field::{part, part_mut};
use super::header::Header;
use super::msix_structures::MsixWindow;
use super::overlay::Overlay;
use super::spec;
use crate::hardware::Hardware;

/// Overlay and areas. A guest's access goes to the overlay first, then to the areas it touches.
pub(super) struct Configuration {
    overlay: Overlay,
    header: Header,
    /// In the order of their registers.
    capabilities: Vec<Box<dyn Area>>,
}

/// What a configuration space is made from.
pub(super) struct Parts<'a> {
    pub(super) hardware: &'a Arc<dyn Hardware>,
    pub(super) router: &'a Arc<dyn MsiRouter>,
    /// The hardware's configuration space, read once.
    pub(super) snapshot: &'a [u8],
    pub(super) bars: Bars,
    pub(super) rom: Option<RomBar>,
    /// The wire, see [`super::header::intx_pin`].
    pub(super) intx_pin: Option<u8>,
    pub(super) is_multi_function: bool,
    pub(super) hides_msix: bool,
}

impl Configuration {
    /// Takes every capability over. A list that is broken is told of, and what is wrong in it left out.
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let snapshot = parts.snapshot;
        let mut overlay = Overlay::new(snapshot);
        super::header::patch(&mut overlay, snapshot, parts.intx_pin, parts.is_multi_function);
        let walk = capabilities(snapshot, capability::length);
        let context = Context {
            hardware: parts.hardware,
            router: parts.router,
            snapshot,
            bars: &parts.bars,
            hides_msix: parts.hides_msix,
        };
        let (shown, mut areas) = take_all(&context, &mut overlay, &walk);
        areas.sort_by_key(|area| area.range().start);
        if walk.is_sound {
            forward_unowned(&mut overlay, &walk);
        }
        let is_express = shown.iter().any(|found| found.id == capability_id::EXPRESS);
        let is_sound = patch_extended(&mut overlay, snapshot, is_express) && walk.is_sound;
        if !is_sound {
            log::warn!(
                "{}: a capability list is broken; what is wrong in it is left out",
                parts.hardware.name()
            );
        }
        let header = Header {
            bars: parts.bars,
            rom: parts.rom,
        };
        Self {
            overlay,
            header,
            capabilities: areas,
        }
    }

    /// What must be trapped in BAR `bar`.
    pub(super) fn window(&self, bar: u8) -> Option<MsixWindow> {
        self.areas().find_map(|area| area.window(bar))
    }

    /// What the guest reads from `register` on.
    pub(super) fn read(&self, hardware: &dyn Hardware, register: u16, data: &mut [u8]) {
        self.overlay.read(hardware, register, data);
        for area in self.areas() {
            let range = area.range();
            if let Some((at, bytes)) = part_mut(register, data, range.start, range.end - range.start) {
                area.read(at, bytes);
            }
        }
    }

    /// The registers that are bytes: first half of a guest's write.
    pub(super) fn write_bytes(&mut self, hardware: &dyn Hardware, register: u16, data: &[u8]) {
        self.overlay.write(hardware, register, data);
    }

    /// The registers that are more: second half of it.
    pub(super) fn write_areas(&mut self, register: u16, data: &[u8]) -> Request {
        let Self {
            overlay,
            header,
            capabilities,
        } = self;
        let mut request = Request::Nothing;
        let mut tell = |area: &mut dyn Area| {
            let range = area.range();
            if let Some((at, bytes)) = part(register, data, range.start, range.end - range.start)
                && area.write(overlay, at, bytes) == Request::Reset
            {
                request = Request::Reset;
            }
        };
        tell(header);
        capabilities.iter_mut().for_each(|area| tell(&mut **area));
        request
    }

    /// Back to the state after power-on, but for what areas have to undo on the hardware.
    pub(super) fn reset_bytes(&mut self) {
        self.overlay.reset();
    }

    /// The areas back to it.
    pub(super) fn reset_areas(&mut self) {
        self.header.reset();
        self.capabilities.iter_mut().for_each(|area| area.reset());
    }

    /// The command register, as the guest wrote it.
    pub(super) fn command(&self) -> u16 {
        self.overlay.copy().u16(header::COMMAND)
    }

    /// It is in D0.
    pub(super) fn is_awake(&self) -> bool {
        !self.areas().any(Area::is_asleep)
    }

    /// The guest has it interrupt by messages.
    pub(super) fn has_messages(&self) -> bool {
        self.areas().any(Area::has_messages)
    }

    /// A write that is about to turn messages on. The host refuses them while it has the wire
    /// (`vfio_pci_set_irqs_ioctl`, `irq_is` in drivers/vfio/pci/vfio_pci_intrs.c).
    pub(super) fn turns_messages_on(&self, register: u16, data: &[u8]) -> bool {
        self.areas().any(|area| {
            let range = area.range();
            let touched = part(register, data, range.start, range.end - range.start);
            touched.is_some_and(|(at, bytes)| area.turns_messages_on(at, bytes))
        })
    }

    /// Where BARs and ROM are. Nothing is decoded in the low-power states (PCI Power Management 1.2 §5.4.1).
    pub(super) fn places(&self) -> (Places, Option<Place>) {
        let command = if self.is_awake() { self.command() } else { 0 };
        self.header.places(command)
    }

    /// The BARs as the function declares them.
    pub(super) fn bars(&self) -> &Bars {
        &self.header.bars
    }

    fn areas(&self) -> impl Iterator<Item = &dyn Area> {
        let header: &dyn Area = &self.header;
        std::iter::once(header).chain(self.capabilities.iter().map(|area| &**area))
    }
}

/// Takes every capability of the list, links those that the guest sees and blanks the others.
fn take_all(
    context: &Context<'_>,
    overlay: &mut Overlay,
    walk: &Walk<Capability>,
) -> (Vec<Capability>, Vec<Box<dyn Area>>) {
    let (mut shown, mut areas) = (Vec::new(), Vec::new());
    for (n, &found) in walk.found.iter().enumerate() {
        let taken = capability::take(context, overlay, found, &walk.found[..n]);
        areas.extend(taken.area);
        if taken.is_shown {
            shown.push(found);
        } else {
            overlay.replace(found.offset, &vec![0; usize::from(found.len)]);
        }
    }
    link(overlay, &shown);
    (shown, areas)
}

/// Extended capabilities are those of a function with the Express capability; false if their list is broken.
fn patch_extended(overlay: &mut Overlay, snapshot: &[u8], is_express: bool) -> bool {
    if is_express && snapshot.len() > usize::from(spec::extended::FIRST) {
        let walk = extended_capabilities(snapshot);
        extended::patch(overlay, &walk.found);
        walk.is_sound
    } else {
        extended::hide(overlay);
        true
    }
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

/// Bytes that belong to no capability are registers of the device's own, which its driver may need.
fn forward_unowned(overlay: &mut Overlay, walk: &Walk<Capability>) {
    let mut is_owned = [false; spec::capability::END as usize];
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
            spec::capability::HEADER_LEN => next.unwrap_or(spec::capability::END),
            len => found.offset + len,
        };
        is_owned[usize::from(found.offset)..usize::from(end)].fill(true);
    }
    for (register, _) in (0..).zip(is_owned).filter(|(_, is_owned)| !is_owned) {
        overlay.forward(register, &[0xff]);
    }
}

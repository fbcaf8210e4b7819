//! The type 0 header (PCIe §7.5.1.2): what the guest sees of it, and the registers that place BARs and ROM.

use std::ops::Range;

use strait_devices::Place;
use strait_devices::pci::bar::{BAR_REGISTERS_LEN, Bars, Places};
use strait_devices::pci::rom_bar::{ROM_BAR_LEN, RomBar};
use strait_devices::pci::spec::{command, header};

use super::area::{Area, Request};
use super::discover::ConfigRead;
use super::field::{part, part_mut};
use super::overlay::Overlay;
use super::spec;
use crate::hardware::{Hardware, InterruptKind};

/// Command bits a guest may set. What they do is up to [`super::Passthrough`]: none of them is forwarded
/// as it is.
const COMMAND_WRITABLE: u16 = command::IO
    | command::MEMORY
    | command::BUS_MASTER
    | command::PARITY
    | command::SERR
    | command::INTX_DISABLE;

/// The registers that are more than bytes.
pub(super) struct Header {
    pub(super) bars: Bars,
    pub(super) rom: Option<RomBar>,
}

impl Header {
    /// Where BARs and ROM are with `command` in the command register.
    pub(super) fn places(&self, command: u16) -> (Places, Option<Place>) {
        let rom = self.rom.as_ref().and_then(|rom| rom.place(command));
        (self.bars.places(command), rom)
    }
}

impl Area for Header {
    fn range(&self) -> Range<u16> {
        0..spec::header::LEN
    }

    fn read(&self, at: u16, data: &mut [u8]) {
        if let Some((at, bytes)) = part_mut(at, data, header::BAR0, BAR_REGISTERS_LEN) {
            self.bars.read(at, bytes);
        }
        if let Some((at, bytes)) = part_mut(at, data, header::ROM_BAR, ROM_BAR_LEN)
            && let Some(rom) = &self.rom
        {
            rom.read(at, bytes);
        }
    }

    fn write(&mut self, _overlay: &mut Overlay, at: u16, data: &[u8]) -> Request {
        if let Some((at, bytes)) = part(at, data, header::BAR0, BAR_REGISTERS_LEN) {
            self.bars.write(at, bytes);
        }
        if let Some((at, bytes)) = part(at, data, header::ROM_BAR, ROM_BAR_LEN)
            && let Some(rom) = &mut self.rom
        {
            rom.write(at, bytes);
        }
        Request::Nothing
    }

    fn reset(&mut self) {
        self.bars.reset();
        if let Some(rom) = &mut self.rom {
            rom.reset();
        }
    }
}

/// The wire of a function whose INTx the host delivers, 1 to 4 for INTA to INTD.
pub(super) fn intx_pin(hardware: &dyn Hardware, snapshot: &[u8]) -> Option<u8> {
    let has_intx = hardware.interrupt(InterruptKind::Intx).count != 0;
    let pin = snapshot.u8(header::INTERRUPT_PIN);
    (has_intx && (1..=4).contains(&pin)).then_some(pin)
}

/// The header as the guest finds it. Whether there are more functions is up to the slot that it finds this one
/// in.
pub(super) fn patch(overlay: &mut Overlay, snapshot: &[u8], pin: Option<u8>, is_multi_function: bool) {
    overlay.freeze(0, header::STATUS);
    overlay.freeze(header::REVISION_ID, spec::header::LEN - header::REVISION_ID);
    overlay.replace(header::COMMAND, &[0, 0]);
    overlay.allow_write(header::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
    overlay.allow_write(header::CACHE_LINE_SIZE, &[0xff]);
    overlay.replace(spec::header::BIST, &[0]);
    overlay.replace(header::ROM_BAR, &[0; spec::header::ROM_BAR_LEN as usize]);
    overlay.replace(header::INTERRUPT_LINE, &[0]);
    overlay.allow_write(header::INTERRUPT_LINE, &[0xff]);
    overlay.replace(header::INTERRUPT_PIN, &[pin.unwrap_or(0)]);
    let alone = snapshot.u8(header::HEADER_TYPE) & !header::MULTI_FUNCTION;
    let beside_others = if is_multi_function {
        header::MULTI_FUNCTION
    } else {
        0
    };
    overlay.replace(header::HEADER_TYPE, &[alone | beside_others]);
}

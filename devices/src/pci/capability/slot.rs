//! The slot of a root port: hot plug as the guest's driver sees it (PCIe §6.7, §7.5.3.9 to .11).
//!
//! A device leaves in one of two ways. Asked by the attention button, the guest stops its drivers and
//! switches the slot off; the device is out then. Or it is pulled: the link goes down and the guest hears of
//! it afterwards.

use crate::pci::config_space::ConfigSpace;

/// Offsets from the Express capability.
const EXPRESS_CAPABILITIES: u16 = 0x02;
const LINK_STATUS: u16 = 0x12;
const CAPABILITIES: u16 = 0x14;
const CONTROL: u16 = 0x18;
const STATUS: u16 = 0x1a;

/// In the Express capabilities: the port has a slot.
const SLOT_IMPLEMENTED: u16 = 1 << 8;

/// In the link status: the link is up.
const LINK_ACTIVE: u16 = 1 << 13;

/// Attention button, power controller, power indicator, surprise removal, hot-plug capable, and no event
/// for a completed command: each is done when the write returns. The slot's number goes above.
const ABILITIES: u32 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 18;
const NUMBER_SHIFT: u32 = 19;

/// The guest wants to hear of the attention button, presence, hot-plug interrupts at all, the link.
const BUTTON_ENABLE: u16 = 1 << 0;
const PRESENCE_ENABLE: u16 = 1 << 3;
const INTERRUPT_ENABLE: u16 = 1 << 5;
const LINK_ENABLE: u16 = 1 << 12;
/// The power indicator, 2 bits.
const INDICATOR_ON: u16 = 1 << 8;
const INDICATOR_BLINKS: u16 = 2 << 8;
const INDICATOR_OFF: u16 = 3 << 8;
const INDICATOR: u16 = 3 << 8;
/// The attention indicator, 2 bits, without a lamp behind it.
const ATTENTION_OFF: u16 = 3 << 6;
/// Written 1 the slot has no power.
const POWER_OFF: u16 = 1 << 10;
/// Everything but the interlock, which there is none.
const CONTROL_WRITABLE: u16 = 0x17ff;

/// What happened; a written 1 clears each.
const BUTTON_PRESSED: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
const LINK_CHANGED: u16 = 1 << 8;
const EVENTS: u16 = BUTTON_PRESSED | PRESENCE_CHANGED | LINK_CHANGED;
/// A device is there.
const PRESENT: u16 = 1 << 6;

/// What a write of the guest did to the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// Nothing.
    Same,
    /// It was switched on.
    On,
    /// It was switched off.
    Off,
}

/// The registers of one slot; their bytes are in the port's configuration space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Where the port's Express capability is.
    express: u16,
}

impl Slot {
    /// Adds slot `number`, with a device in it or empty, to the Express capability at `express`.
    pub(crate) fn add(config: &mut ConfigSpace, express: u16, number: u8, is_occupied: bool) -> Self {
        let slot = Self { express };
        let capabilities = config.u16(express + EXPRESS_CAPABILITIES) | SLOT_IMPLEMENTED;
        config.set(express + EXPRESS_CAPABILITIES, &capabilities.to_le_bytes());
        let abilities = ABILITIES | u32::from(number) << NUMBER_SHIFT;
        config.set(express + CAPABILITIES, &abilities.to_le_bytes());
        config.allow_write(express + CONTROL, &CONTROL_WRITABLE.to_le_bytes());
        config.allow_clear(express + STATUS, &EVENTS.to_le_bytes());
        let control = match is_occupied {
            true => ATTENTION_OFF | INDICATOR_ON,
            false => ATTENTION_OFF | INDICATOR_OFF | POWER_OFF,
        };
        config.set(express + CONTROL, &control.to_le_bytes());
        slot.set(config, STATUS, PRESENT, is_occupied);
        slot.set(config, LINK_STATUS, LINK_ACTIVE, is_occupied);
        slot
    }

    /// True while a device in the slot answers.
    pub(crate) fn is_on(self, config: &ConfigSpace) -> bool {
        self.is_occupied(config) && !self.is_off(config)
    }

    /// True while a device is in the slot.
    pub(crate) fn is_occupied(self, config: &ConfigSpace) -> bool {
        config.u16(self.express + STATUS) & PRESENT != 0
    }

    /// True when something happened that the guest wants an interrupt for (§6.7.3.1).
    pub(crate) fn asks_for_interrupt(self, config: &ConfigSpace) -> bool {
        let control = config.u16(self.express + CONTROL);
        let enabled = [
            (BUTTON_ENABLE, BUTTON_PRESSED),
            (PRESENCE_ENABLE, PRESENCE_CHANGED),
            (LINK_ENABLE, LINK_CHANGED),
        ];
        let events = config.u16(self.express + STATUS);
        let wants = |(enable, event)| control & enable != 0 && events & event != 0;
        control & INTERRUPT_ENABLE != 0 && enabled.into_iter().any(wants)
    }

    /// Follows a guest's write; `was_off` is how the slot was before. Power and link go together.
    pub(crate) fn follow(self, config: &mut ConfigSpace, was_off: bool) -> Power {
        let power = match (was_off, self.is_off(config)) {
            (false, true) => Power::Off,
            (true, false) => Power::On,
            _ => return Power::Same,
        };
        if self.is_occupied(config) {
            self.set(config, LINK_STATUS, LINK_ACTIVE, power == Power::On);
            self.set(config, STATUS, LINK_CHANGED, true);
        }
        power
    }

    /// The slot has no power.
    pub(crate) fn is_off(self, config: &ConfigSpace) -> bool {
        config.u16(self.express + CONTROL) & POWER_OFF != 0
    }

    /// Presses the attention button; false if nobody listens. A second press while the indicator blinks
    /// would take the first back.
    pub(crate) fn press_button(self, config: &mut ConfigSpace) -> bool {
        let control = config.u16(self.express + CONTROL);
        let listens = BUTTON_ENABLE | INTERRUPT_ENABLE;
        if control & listens != listens || self.is_off(config) {
            return false;
        }
        if control & INDICATOR != INDICATOR_BLINKS {
            self.set(config, STATUS, BUTTON_PRESSED, true);
        }
        true
    }

    /// The device is gone.
    pub(crate) fn remove(self, config: &mut ConfigSpace) {
        self.set(config, STATUS, PRESENT, false);
        self.set(config, LINK_STATUS, LINK_ACTIVE, false);
        self.set(config, STATUS, PRESENCE_CHANGED | LINK_CHANGED, true);
    }

    fn set(self, config: &mut ConfigSpace, register: u16, bits: u16, on: bool) {
        let at = self.express + register;
        let value = config.u16(at) & !bits | if on { bits } else { 0 };
        config.set(at, &value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::capability::express;

    const AT: u16 = 0x40;

    /// A slot whose guest has loaded its hot-plug driver.
    fn driven() -> (ConfigSpace, Slot) {
        let mut config = ConfigSpace::new();
        express::add_root_port(&mut config, AT, 0, 3);
        let slot = Slot::add(&mut config, AT, 3, true);
        let enables = BUTTON_ENABLE | PRESENCE_ENABLE | INTERRUPT_ENABLE | LINK_ENABLE;
        config.write(AT + CONTROL, &(enables | INDICATOR_ON).to_le_bytes());
        (config, slot)
    }

    fn switch_off(config: &mut ConfigSpace, slot: Slot) -> Power {
        let was_off = slot.is_off(config);
        let control = config.u16(AT + CONTROL) | POWER_OFF;
        config.write(AT + CONTROL, &control.to_le_bytes());
        slot.follow(config, was_off)
    }

    #[test]
    fn a_press_is_heard_once_and_cleared_by_the_guest() {
        let (mut config, slot) = driven();
        assert!(slot.press_button(&mut config) && slot.asks_for_interrupt(&config));
        config.write(AT + STATUS, &BUTTON_PRESSED.to_le_bytes());
        assert!(!slot.asks_for_interrupt(&config));
        let blinks = config.u16(AT + CONTROL) & !INDICATOR | INDICATOR_BLINKS;
        config.write(AT + CONTROL, &blinks.to_le_bytes());
        assert!(slot.press_button(&mut config));
        assert!(!slot.asks_for_interrupt(&config), "a second press would cancel");
    }

    #[test]
    fn nobody_hears_the_button_before_the_driver_is_there() {
        let mut config = ConfigSpace::new();
        express::add_root_port(&mut config, AT, 0, 3);
        let slot = Slot::add(&mut config, AT, 3, true);
        assert!(!slot.press_button(&mut config));
        assert!(slot.is_on(&config));
    }

    #[test]
    fn without_power_the_link_is_down_and_the_device_is_still_there() {
        let (mut config, slot) = driven();
        assert_eq!(switch_off(&mut config, slot), Power::Off);
        assert!(!slot.is_on(&config) && slot.is_occupied(&config));
        assert_eq!(config.u16(AT + LINK_STATUS) & LINK_ACTIVE, 0);
        assert!(!slot.press_button(&mut config));
        let was_off = slot.is_off(&config);
        let control = config.u16(AT + CONTROL) & !POWER_OFF;
        config.write(AT + CONTROL, &control.to_le_bytes());
        assert_eq!(slot.follow(&mut config, was_off), Power::On);
        assert!(slot.is_on(&config) && config.u16(AT + LINK_STATUS) & LINK_ACTIVE != 0);
    }

    #[test]
    fn a_device_that_is_pulled_is_told() {
        let (mut config, slot) = driven();
        slot.remove(&mut config);
        assert!(slot.asks_for_interrupt(&config) && !slot.is_on(&config));
        config.write(AT + STATUS, &(PRESENCE_CHANGED | LINK_CHANGED).to_le_bytes());
        assert!(!slot.asks_for_interrupt(&config));
    }

    #[test]
    fn an_empty_slot_is_off() {
        let mut config = ConfigSpace::new();
        express::add_root_port(&mut config, AT, 0, 3);
        let slot = Slot::add(&mut config, AT, 3, false);
        assert!(!slot.is_on(&config) && slot.is_off(&config));
        assert_eq!(config.u32(AT + CAPABILITIES) >> NUMBER_SHIFT, 3);
    }
}

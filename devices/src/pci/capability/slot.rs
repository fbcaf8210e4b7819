//! The slot of a root port: hot plug as the guest's driver sees it (PCIe §6.7, §7.5.3.9 to .11).
//!
//! A device leaves in one of two ways. Asked by the attention button, the guest stops its drivers and
//! switches the slot off; the device is out then. Or it is pulled: the link goes down and the guest hears of
//! it afterwards. A device that comes finds a slot without power, which the guest switches on.

use crate::pci::config_space::ConfigSpace;
use crate::pci::spec::express::{
    Capabilities, LinkStatus, SlotCapabilities, SlotControl, SlotStatus, indicator, offset,
};

/// Each command is done when the write returns.
const ABILITIES: SlotCapabilities = SlotCapabilities::new()
    .with_button(true)
    .with_power_controller(true)
    .with_power_indicator(true)
    .with_surprise(true)
    .with_hot_plug(true)
    .with_no_command_event(true);

/// Everything but the interlock, which there is none.
const CONTROL_WRITABLE: SlotControl = SlotControl::new()
    .with_hears_button(true)
    .with_hears_fault(true)
    .with_hears_latch(true)
    .with_hears_presence(true)
    .with_hears_command(true)
    .with_interrupts(true)
    .with_attention_indicator(0x3)
    .with_power_indicator(0x3)
    .with_power_off(true)
    .with_hears_link(true);

/// What happened; a written 1 clears each.
const EVENTS: SlotStatus = SlotStatus::new()
    .with_button(true)
    .with_presence_changed(true)
    .with_link_changed(true);

/// What a write of the guest did to the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// Power is as it was.
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
        let at = express + offset::CAPABILITIES;
        let capabilities = Capabilities::from_bits(config.u16(at)).with_slot(true);
        config.set(at, &capabilities.into_bits().to_le_bytes());
        let abilities = ABILITIES.with_number(number.into());
        config.set(
            express + offset::SLOT_CAPABILITIES,
            &abilities.into_bits().to_le_bytes(),
        );
        let (control, status) = (express + offset::SLOT_CONTROL, express + offset::SLOT_STATUS);
        config.allow_write(control, &CONTROL_WRITABLE.into_bits().to_le_bytes());
        config.allow_clear(status, &EVENTS.into_bits().to_le_bytes());
        let power = if is_occupied {
            indicator::ON
        } else {
            indicator::OFF
        };
        let begin = SlotControl::new()
            .with_attention_indicator(indicator::OFF)
            .with_power_indicator(power)
            .with_power_off(!is_occupied);
        config.set(control, &begin.into_bits().to_le_bytes());
        slot.change_status(config, |status| status.with_present(is_occupied));
        slot.set_link(config, is_occupied);
        slot
    }

    /// True while a device in the slot answers.
    pub(crate) fn is_on(self, config: &ConfigSpace) -> bool {
        self.is_occupied(config) && !self.is_off(config)
    }

    /// True while a device is in the slot.
    pub(crate) fn is_occupied(self, config: &ConfigSpace) -> bool {
        self.status(config).present()
    }

    /// True when something happened that the guest wants an interrupt for (§6.7.3.1).
    pub(crate) fn asks_for_interrupt(self, config: &ConfigSpace) -> bool {
        let (control, status) = (self.control(config), self.status(config));
        control.interrupts()
            && (control.hears_button() && status.button()
                || control.hears_presence() && status.presence_changed()
                || control.hears_link() && status.link_changed())
    }

    /// Follows a guest's write; `was_off` is how the slot was before. Power and link go together.
    pub(crate) fn follow(self, config: &mut ConfigSpace, was_off: bool) -> Power {
        let power = match (was_off, self.is_off(config)) {
            (false, true) => Power::Off,
            (true, false) => Power::On,
            _ => return Power::Same,
        };
        if self.is_occupied(config) {
            self.set_link(config, power == Power::On);
            self.change_status(config, |status| status.with_link_changed(true));
        }
        power
    }

    /// The slot has no power.
    pub(crate) fn is_off(self, config: &ConfigSpace) -> bool {
        self.control(config).power_off()
    }

    /// The guest has the power indicator shine or blink.
    pub(crate) fn is_lit(self, config: &ConfigSpace) -> bool {
        self.control(config).power_indicator() != indicator::OFF
    }

    /// Presses the attention button; false if nobody listens. A second press while the indicator blinks
    /// would take the first back.
    pub(crate) fn press_button(self, config: &mut ConfigSpace) -> bool {
        let control = self.control(config);
        if !control.hears_button() || !control.interrupts() || control.power_off() {
            return false;
        }
        if control.power_indicator() != indicator::BLINKS {
            self.change_status(config, |status| status.with_button(true));
        }
        true
    }

    /// The device is gone.
    pub(crate) fn remove(self, config: &mut ConfigSpace) {
        self.set_link(config, false);
        self.change_status(config, |status| {
            status
                .with_present(false)
                .with_presence_changed(true)
                .with_link_changed(true)
        });
    }

    /// A device is there. A Linux that hears the attention button does not hear of presence, for then a user presses
    /// the button, and waits for five seconds (`pcie_enable_notification`, drivers/pci/hotplug/pciehp_hpc.c). It hears
    /// of the link and then looks for a device, so that tells, too.
    pub(crate) fn insert(self, config: &mut ConfigSpace) {
        self.change_status(config, |status| {
            status
                .with_present(true)
                .with_presence_changed(true)
                .with_link_changed(true)
        });
    }

    fn control(self, config: &ConfigSpace) -> SlotControl {
        SlotControl::from_bits(config.u16(self.express + offset::SLOT_CONTROL))
    }

    fn status(self, config: &ConfigSpace) -> SlotStatus {
        SlotStatus::from_bits(config.u16(self.express + offset::SLOT_STATUS))
    }

    fn change_status(self, config: &mut ConfigSpace, change: impl FnOnce(SlotStatus) -> SlotStatus) {
        let status = change(self.status(config)).into_bits();
        config.set(self.express + offset::SLOT_STATUS, &status.to_le_bytes());
    }

    fn set_link(self, config: &mut ConfigSpace, is_up: bool) {
        let at = self.express + offset::LINK_STATUS;
        let status = LinkStatus::from_bits(config.u16(at)).with_active(is_up);
        config.set(at, &status.into_bits().to_le_bytes());
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
        let control = SlotControl::new()
            .with_hears_button(true)
            .with_hears_presence(true)
            .with_hears_link(true)
            .with_interrupts(true)
            .with_power_indicator(indicator::ON);
        write(&mut config, offset::SLOT_CONTROL, control);
        (config, slot)
    }

    /// What the guest writes to one of the slot's registers.
    fn write(config: &mut ConfigSpace, register: u16, value: impl Into<u16>) {
        config.write(AT + register, &value.into().to_le_bytes());
    }

    fn switch(config: &mut ConfigSpace, slot: Slot, off: bool) -> Power {
        let was_off = slot.is_off(config);
        let control = slot.control(config).with_power_off(off);
        write(config, offset::SLOT_CONTROL, control);
        slot.follow(config, was_off)
    }

    fn link_is_up(config: &ConfigSpace) -> bool {
        LinkStatus::from_bits(config.u16(AT + offset::LINK_STATUS)).active()
    }

    #[test]
    fn a_press_is_heard_once_and_cleared_by_the_guest() {
        let (mut config, slot) = driven();
        assert!(slot.press_button(&mut config) && slot.asks_for_interrupt(&config));
        write(
            &mut config,
            offset::SLOT_STATUS,
            SlotStatus::new().with_button(true),
        );
        assert!(!slot.asks_for_interrupt(&config));
        let blinks = slot.control(&config).with_power_indicator(indicator::BLINKS);
        write(&mut config, offset::SLOT_CONTROL, blinks);
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
        assert_eq!(switch(&mut config, slot, true), Power::Off);
        assert!(!slot.is_on(&config) && slot.is_occupied(&config));
        assert!(!link_is_up(&config) && !slot.press_button(&mut config));
        assert_eq!(switch(&mut config, slot, false), Power::On);
        assert!(slot.is_on(&config) && link_is_up(&config));
    }

    #[test]
    fn a_device_that_is_pulled_is_told() {
        let (mut config, slot) = driven();
        slot.remove(&mut config);
        assert!(slot.asks_for_interrupt(&config) && !slot.is_on(&config));
        write(&mut config, offset::SLOT_STATUS, EVENTS);
        assert!(!slot.asks_for_interrupt(&config));
    }

    #[test]
    fn a_device_that_comes_is_told_and_answers_once_it_has_power() {
        let (mut config, slot) = driven();
        slot.remove(&mut config);
        write(&mut config, offset::SLOT_STATUS, EVENTS);
        switch(&mut config, slot, true);
        let hears_no_presence = slot.control(&config).with_hears_presence(false);
        write(&mut config, offset::SLOT_CONTROL, hears_no_presence);
        slot.insert(&mut config);
        assert!(slot.asks_for_interrupt(&config), "by the link alone");
        assert!(slot.is_occupied(&config) && !slot.is_on(&config) && !link_is_up(&config));
        write(&mut config, offset::SLOT_STATUS, EVENTS);
        assert_eq!(switch(&mut config, slot, false), Power::On);
        assert!(slot.is_on(&config) && link_is_up(&config) && slot.asks_for_interrupt(&config));
    }

    #[test]
    fn an_empty_slot_is_off() {
        let mut config = ConfigSpace::new();
        express::add_root_port(&mut config, AT, 0, 3);
        let slot = Slot::add(&mut config, AT, 3, false);
        assert!(!slot.is_on(&config) && slot.is_off(&config));
        let abilities = config.u32(AT + offset::SLOT_CAPABILITIES);
        assert_eq!(SlotCapabilities::from_bits(abilities).number(), 3);
    }
}

//! The power button of a hardware-reduced machine, and the device whose interrupt tells that it was pressed (ACPI 6.5
//! §4.8.3.2.1, §5.6.9).

use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, Interrupt, Method, Name, Notify, Path, ResourceTemplate};

use crate::layout;

/// What a power button notifies of when it is pressed (ACPI 6.5 table 5.127).
const PRESSED: u8 = 0x80;

pub(super) fn devices() -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0C0C"));
    let uid = Name::new("_UID".into(), &0u8);
    let button = Device::new("PWRB".into(), vec![&hid, &uid]);

    // The event has one source, so the method need not ask which; and the edge of a pulse needs no acknowledgement, so
    // that a press costs the guest no access to a register.
    let interrupt = Interrupt::new(true, true, false, false, u32::from(layout::POWER_BUTTON_IRQ));
    let hid = Name::new("_HID".into(), &"ACPI0013");
    let uid = Name::new("_UID".into(), &0u8);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt]));
    let path = Path::new("\\_SB_.PWRB");
    let tell = Notify::new(&path, &PRESSED);
    let event = Method::new("_EVT".into(), 1, true, vec![&tell]);
    let source = Device::new("GED_".into(), vec![&hid, &uid, &resources, &event]);

    let mut bytes = Vec::new();
    button.to_aml_bytes(&mut bytes);
    source.to_aml_bytes(&mut bytes);
    bytes
}

//! FADT: which parts of ACPI's fixed hardware there are (ACPI 6.5 §5.2.9): the sleep and reset registers.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use strait_devices::acpi_pm::SleepRegisters;
use strait_devices::legacy::Rtc;
use vm_memory::GuestAddress;

use super::config::AcpiConfig;
use super::header::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// IA-PC boot architecture flags (table 5.11). Left out on purpose: 8042 (Linux then does not look for a
/// keyboard) and "no MSI".
const LEGACY_DEVICES: u16 = 1 << 0;
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;
/// The keyboard controller's reset command. Any register may serve (ACPI 6.5 §4.8.3.6); this one always
/// leaves the guest at once.
const RESET_VALUE: u8 = 0xfe;

pub(super) fn table(dsdt: GuestAddress, config: &AcpiConfig) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // As on every PC; without it the table would have to tell the size of caches (ACPI 6.5 table 5.10).
        .flag(Flags::Wbinvd)
        // Set, these three say that there is no fixed power button, sleep button or RTC alarm.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc);
    // Both, for readers from before ACPI 2.0 look at the short one only.
    fadt.dsdt = (dsdt.0 as u32).into();
    fadt.x_dsdt = dsdt.0.into();
    let (century, no_clock) = match config.has_clock {
        true => (Rtc::CENTURY_INDEX, 0),
        false => (0, NO_CMOS_RTC),
    };
    fadt.century = century;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | no_clock).into();
    fadt.reset_reg = port(layout::KEYBOARD_CONTROLLER);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(layout::SLEEP_REGISTERS + SleepRegisters::CONTROL as u16);
    fadt.sleep_status_reg = port(layout::SLEEP_REGISTERS + SleepRegisters::STATUS as u16);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"STRAIT\0\0").into();
    fadt.finalize()
}

/// An 8-bit register in I/O space (Generic Address Structure, ACPI 6.5 §5.2.3.2).
fn port(number: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(number),
    )
}

//! DSDT: the devices that cannot be found by looking, and how to sleep.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use strait_devices::acpi_pm::{self, SleepRegisters};
use strait_devices::legacy::{Pvpanic, Rtc, Serial};

use super::config::AcpiConfig;
use super::header::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use super::power_button;
use crate::layout;

/// Length of a table with nothing behind its header.
const HEADER_BYTES: u32 = 36;
/// The revision that gives AML 64-bit integers.
const REVISION: u8 = 2;

pub(super) fn table(config: &AcpiConfig) -> Sdt {
    let mut devices = Vec::new();
    config.pci.to_aml_bytes(&mut devices);
    devices.extend(motherboard());
    devices.extend(serial());
    if config.has_clock {
        devices.extend(clock());
    }
    devices.extend(pvpanic());
    if config.has_power_button {
        devices.extend(power_button::devices());
    }
    let mut dsdt = Sdt::new(
        *b"DSDT",
        HEADER_BYTES,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    dsdt.append_slice(&Scope::raw("\\_SB_".into(), devices));
    dsdt.append_slice(&soft_off());
    dsdt
}

/// `\_S5`: the value to write into the sleep control register; the second is for a register we have not.
fn soft_off() -> Vec<u8> {
    to_bytes(&Name::new(
        "\\_S5_".into(),
        &Package::new(vec![&acpi_pm::SOFT_OFF, &0u8]),
    ))
}

/// Resources of the motherboard, which belong to no device. Linux uses ECAM only if it is reserved here or in the
/// memory map (`pci_mmcfg_check_reserved`, arch/x86/pci/mmconfig-shared.c).
fn motherboard() -> Vec<u8> {
    let ecam = Memory32Fixed::new(true, layout::ECAM.start.0 as u32, layout::ECAM.len as u32);
    let sleep = ports(layout::SLEEP_REGISTERS, SleepRegisters::PORTS);
    device("MBRD", &EISAName::new("PNP0C02"), &[&ecam, &sleep])
}

fn serial() -> Vec<u8> {
    // Edge-triggered and active high, as ISA has it and as the I/O APIC takes it without an override in the MADT.
    let interrupt = Interrupt::new(true, true, false, false, u32::from(layout::COM1_IRQ));
    device(
        "COM1",
        &EISAName::new("PNP0501"),
        &[&ports(layout::COM1, Serial::PORTS), &interrupt],
    )
}

/// Without an interrupt: it would never come.
fn clock() -> Vec<u8> {
    device(
        "RTC_",
        &EISAName::new("PNP0B00"),
        &[&ports(layout::RTC, Rtc::PORTS)],
    )
}

/// By the id that Linux's driver looks for (drivers/misc/pvpanic/pvpanic-mmio.c), which takes ports, too.
fn pvpanic() -> Vec<u8> {
    device("PEVT", &"QEMU0001", &[&ports(layout::PVPANIC, Pvpanic::PORTS)])
}

fn device(name: &str, hid: &dyn Aml, resources: &[&dyn Aml]) -> Vec<u8> {
    let hid = Name::new("_HID".into(), hid);
    let uid = Name::new("_UID".into(), &0u8);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(resources.to_vec()));
    to_bytes(&Device::new(name.into(), vec![&hid, &uid, &resources]))
}

fn ports(first: u16, count: u64) -> IO {
    IO::new(first, first, 1, count as u8)
}

fn to_bytes(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

//! The two registers by which a hardware-reduced ACPI machine is put to sleep (ACPI 6.5 §4.8.3.7): sleep
//! control at offset 0, sleep status at offset 1. The only sleep state we know is soft-off.

use bitfield_struct::bitfield;

use crate::{Device, Effect};

/// SLP_TYPx of soft-off; the `\_S5` object of the DSDT says the same.
pub const SOFT_OFF: u8 = 5;

/// Sleep control register (ACPI 6.5 table 4.13).
#[bitfield(u8)]
struct SleepControl {
    #[bits(2)]
    __: u8,
    /// SLP_TYPx: the state to enter.
    #[bits(3)]
    sleep_type: u8,
    /// SLP_EN: enter it now.
    enable: bool,
    #[bits(2)]
    __: u8,
}

/// Sleep control and sleep status.
///
/// Neither holds anything: nothing that is not off ever sleeps, so control reads 0 and the wake status is
/// never set.
#[derive(Debug, Default)]
pub struct SleepRegisters;

impl SleepRegisters {
    /// Number of ports the registers take.
    pub const PORTS: u64 = 2;
    /// Where sleep control is, bytes from the first port.
    pub const CONTROL: u64 = 0;
    /// Where sleep status is, bytes from the first port.
    pub const STATUS: u64 = 1;
}

impl Device for SleepRegisters {
    fn name(&self) -> &str {
        "acpi-sleep"
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        match data {
            [byte] => *byte = 0,
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let (Self::CONTROL, &[value]) = (offset, data) else {
            return Effect::None;
        };
        let control = SleepControl::from_bits(value);
        if control.enable() && control.sleep_type() == SOFT_OFF {
            Effect::PowerOff
        } else {
            Effect::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_off_powers_off() {
        // What Linux's acpi_hw_extended_sleep writes: wake status cleared, then type 5 with the enable bit.
        assert!(matches!(SleepRegisters.write(1, &[0x80]), Effect::None));
        assert!(matches!(
            SleepRegisters.write(0, &[5 << 2 | 1 << 5]),
            Effect::PowerOff
        ));
    }

    #[test]
    fn other_states_and_a_missing_enable_bit_do_nothing() {
        assert!(matches!(SleepRegisters.write(0, &[5 << 2]), Effect::None));
        assert!(matches!(
            SleepRegisters.write(0, &[3 << 2 | 1 << 5]),
            Effect::None
        ));
        assert!(matches!(
            SleepRegisters.write(1, &[5 << 2 | 1 << 5]),
            Effect::None
        ));
    }

    #[test]
    fn wrong_widths_read_ones_and_write_nothing() {
        assert!(matches!(SleepRegisters.write(0, &[0x34, 0]), Effect::None));
        let mut data = [0; 2];
        SleepRegisters.read(0, &mut data);
        assert_eq!(data, [0xff; 2]);
    }
}

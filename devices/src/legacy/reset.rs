//! The two old ways to reset a PC: the keyboard controller's pulse and the chipset's reset register.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::{Device, Effect};

/// The command and status port of an 8042 keyboard controller to which no keyboard is attached.
///
/// Its status always reads "both buffers empty": a kernel that resets through it first waits for that
/// (Linux `kb_wait`), and with ones it would wait for 65,536 rounds.
#[derive(Debug, Default)]
pub struct KeyboardController;

impl KeyboardController {
    /// Number of ports the device takes.
    pub const PORTS: u64 = 1;

    const STATUS_EMPTY: u8 = 0;
    /// Commands 0xF0 to 0xFF pulse the output lines whose bit is 0; line 0 is the CPU's reset.
    const PULSE_COMMAND: u8 = 0xf0;
    const PULSE_RESET_MASK: u8 = 0xf1;
}

impl Device for KeyboardController {
    fn name(&self) -> &str {
        "i8042"
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        match data {
            [byte] => *byte = Self::STATUS_EMPTY,
            _ => data.fill(0xff),
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Effect {
        match data {
            [command] if command & Self::PULSE_RESET_MASK == Self::PULSE_COMMAND => Effect::Reset,
            _ => Effect::None,
        }
    }
}

/// The chipset's Reset Control Register (Intel ICH datasheets, RST_CNT, port 0xCF9).
///
/// The port lies within the four of PCI's configuration address register, which answers 32-bit accesses
/// only, so this stands in front of the PCI ports: single bytes at offset 1 are its own, all else is theirs.
pub struct ResetControl {
    pci_ports: Arc<dyn Device>,
    value: AtomicU8,
}

impl ResetControl {
    /// Where the register is, in bytes from the first PCI configuration port.
    const OFFSET: u64 = 1;
    /// SYS_RST and FULL_RST: kept, they only say how deep a reset shall be.
    const KEPT: u8 = 1 << 1 | 1 << 3;
    /// RST_CPU: the reset itself.
    const RESET: u8 = 1 << 2;

    /// The register in front of `pci_ports`, the device of ports 0xCF8 to 0xCFF.
    pub fn new(pci_ports: Arc<dyn Device>) -> Self {
        Self {
            pci_ports,
            value: AtomicU8::new(0),
        }
    }
}

impl Device for ResetControl {
    fn name(&self) -> &str {
        self.pci_ports.name()
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (Self::OFFSET, [byte]) => *byte = self.value.load(Ordering::Relaxed),
            (offset, data) => self.pci_ports.read(offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            (Self::OFFSET, [value]) => {
                self.value.store(value & Self::KEPT, Ordering::Relaxed);
                if value & Self::RESET != 0 {
                    Effect::Reset
                } else {
                    Effect::None
                }
            }
            (offset, data) => self.pci_ports.write(offset, data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as its own offset, powers off on every write, so that a forwarded access shows.
    struct Ports;

    impl Device for Ports {
        fn name(&self) -> &str {
            "ports"
        }

        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(0x40 | offset as u8);
        }

        fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
            Effect::PowerOff
        }
    }

    fn reset_control() -> ResetControl {
        ResetControl::new(Arc::new(Ports))
    }

    fn read_byte(device: &dyn Device, offset: u64) -> u8 {
        let mut data = [0xaa];
        device.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn keyboard_controller_is_never_busy() {
        assert_eq!(read_byte(&KeyboardController, 0), 0);
    }

    #[test]
    fn keyboard_pulse_of_line_0_resets() {
        assert!(matches!(KeyboardController.write(0, &[0xfe]), Effect::Reset));
        assert!(matches!(KeyboardController.write(0, &[0xff]), Effect::None));
        assert!(matches!(KeyboardController.write(0, &[0xd1]), Effect::None));
        assert!(matches!(KeyboardController.write(0, &[0xfe, 0]), Effect::None));
    }

    #[test]
    fn reset_register_follows_what_linux_writes() {
        let register = reset_control();
        assert_eq!(read_byte(&register, 1), 0);
        assert!(matches!(register.write(1, &[0x02]), Effect::None));
        assert_eq!(read_byte(&register, 1), 0x02);
        assert!(matches!(register.write(1, &[0x0e]), Effect::Reset));
    }

    #[test]
    fn acpi_reset_value_resets() {
        assert!(matches!(reset_control().write(1, &[0x06]), Effect::Reset));
    }

    #[test]
    fn other_accesses_reach_the_pci_ports() {
        let register = reset_control();
        assert!(matches!(register.write(0, &[0, 0, 0, 0x80]), Effect::PowerOff));
        assert!(matches!(register.write(1, &[6, 0]), Effect::PowerOff));
        assert!(matches!(register.write(4, &[6]), Effect::PowerOff));
        assert_eq!(read_byte(&register, 5), 0x45);
    }
}

//! The port by which a guest says that its kernel panicked (QEMU docs/specs/pvpanic.rst).

use crate::{Device, Effect};

/// Written by a guest whose kernel panicked.
const PANICKED: u8 = 1 << 0;

/// One port: a read tells the events we take, a write is a set of events.
///
/// Only `PANICKED` is offered. A guest with a crash kernel loaded would send `CRASH_LOADED` instead and
/// must then be left alone to write its dump.
#[derive(Debug, Default)]
pub struct Pvpanic;

impl Pvpanic {
    /// Number of ports the device takes.
    pub const PORTS: u64 = 1;
}

impl Device for Pvpanic {
    fn name(&self) -> &str {
        "pvpanic"
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        match data {
            [byte] => *byte = PANICKED,
            _ => data.fill(0xff),
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Effect {
        match data {
            [events] if events & PANICKED != 0 => Effect::Panic,
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_the_panic_event_only() {
        let mut data = [0];
        Pvpanic.read(0, &mut data);
        assert_eq!(data, [1]);
    }

    #[test]
    fn panic_event_becomes_an_effect() {
        assert!(matches!(Pvpanic.write(0, &[1]), Effect::Panic));
        assert!(matches!(Pvpanic.write(0, &[3]), Effect::Panic));
    }

    #[test]
    fn crash_loaded_event_and_wrong_widths_are_ignored() {
        assert!(matches!(Pvpanic.write(0, &[2]), Effect::None));
        assert!(matches!(Pvpanic.write(0, &[1, 0]), Effect::None));
        let mut data = [0; 4];
        Pvpanic.read(0, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}

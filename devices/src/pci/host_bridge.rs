//! The host bridge: device 0 of bus 0, through which the CPUs see PCI. It decodes nothing itself.

use std::sync::Mutex;

use crate::lock::lock;
use crate::pci::config_space::ConfigSpace;
use crate::pci::function::Function;
use crate::pci::spec::header;
use crate::region::Effect;

/// Red Hat's id for QEMU's generic PCI Express host bridge, which no driver claims.
const VENDOR_DEVICE: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
/// Class 06, subclass 00: host bridge.
const CLASS: [u8; 3] = [0x00, 0x00, 0x06];

/// Bytes of a conventional configuration space (PCI 3.0 §6.1).
const CONVENTIONAL_LEN: u16 = 256;

/// A host bridge without any function of its own.
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
}

impl HostBridge {
    /// A host bridge as after power-on.
    pub fn new() -> Self {
        Self {
            config: Mutex::new(Self::power_on()),
        }
    }

    fn power_on() -> ConfigSpace {
        let mut config = ConfigSpace::new();
        config.set(header::VENDOR_ID, &VENDOR_DEVICE);
        config.set(header::CLASS_CODE, &CLASS);
        config
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for HostBridge {
    fn name(&self) -> &str {
        "host bridge"
    }

    /// A conventional function: it has 256 bytes and no extended capabilities to search for.
    fn read_config(&self, register: u16, data: &mut [u8]) {
        if register >= CONVENTIONAL_LEN {
            return data.fill(0xff);
        }
        lock(&self.config).read(register, data);
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        lock(&self.config).write(register, data);
        Effect::None
    }

    fn reset(&self) -> Effect {
        *lock(&self.config) = Self::power_on();
        Effect::None
    }
}

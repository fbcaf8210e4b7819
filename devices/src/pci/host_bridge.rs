//! The host bridge: device 0 of bus 0, through which the CPUs see PCI. It decodes nothing itself.

use std::sync::{Arc, Mutex};

use crate::lock::lock;
use crate::pci::config_space::ConfigSpace;
use crate::pci::function::Function;
use crate::pci::image::Image;
use crate::pci::spec::{CONFIG_SPACE_SIZE, header};
use crate::region::Effect;

/// Red Hat's id for QEMU's generic PCI Express host bridge, which no driver claims.
const VENDOR_DEVICE: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
/// Class 06, subclass 00: host bridge.
const CLASS: [u8; 3] = [0x00, 0x00, 0x06];

/// Bytes of a conventional configuration space (PCI 3.0 §6.1).
const CONVENTIONAL_LEN: usize = 256;

/// A host bridge without any function of its own.
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
}

impl HostBridge {
    /// A host bridge as after power-on.
    pub fn new() -> Self {
        Self {
            config: Mutex::new(Self::power_on().shown_by(Image::new())),
        }
    }

    /// A conventional function: behind its 256 bytes there are no extended capabilities to search for.
    fn power_on() -> ConfigSpace {
        let mut config = ConfigSpace::new();
        config.set(header::VENDOR_ID, &VENDOR_DEVICE);
        config.set(header::CLASS_CODE, &CLASS);
        let nothing = [0xff; CONFIG_SPACE_SIZE - CONVENTIONAL_LEN];
        config.set(CONVENTIONAL_LEN as u16, &nothing);
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

    fn read_config(&self, register: u16, data: &mut [u8]) {
        lock(&self.config).read(register, data);
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        lock(&self.config).write(register, data);
        Effect::None
    }

    fn reset(&self) -> Effect {
        let mut config = lock(&self.config);
        let image = config.image().cloned();
        *config = Self::power_on().shown_by(image);
        Effect::None
    }

    fn image(&self) -> Option<Arc<Image>> {
        lock(&self.config).image().cloned()
    }
}

//! A root port: the PCI-to-PCI bridge that gives each passed device a bus, and an IOMMU group, of its own.

use std::sync::{Arc, Mutex, PoisonError};

use crate::device::Effect;
use crate::dma::LiveBus;
use crate::pci::address::DevFn;
use crate::pci::capability::{acs, express};
use crate::pci::config_space::ConfigSpace;
use crate::pci::function::Function;
use crate::pci::spec::{bridge, command, header, status};

/// Red Hat's id for a PCI Express root port.
const VENDOR_DEVICE: [u8; 4] = [0x36, 0x1b, 0x0c, 0x00];
/// Class 06, subclass 04: PCI-to-PCI bridge.
const CLASS: [u8; 3] = [0x00, 0x04, 0x06];
const EXPRESS_OFFSET: u16 = 0x40;
const ACS_OFFSET: u16 = 0x100;

/// A root port with the functions of the one device behind it.
///
/// The port forwards what its bus numbers say. It does not filter by its memory windows: the address space
/// answers at the BARs, as on a machine whose windows are set up right.
pub struct RootPort {
    name: String,
    number: u8,
    bus: Arc<LiveBus>,
    config: Mutex<ConfigSpace>,
    functions: Vec<(u8, Arc<dyn Function>)>,
}

impl RootPort {
    /// Port `number` (1 to 31, also its device number on bus 0), with `functions` as the functions of
    /// device 0 behind it.
    pub fn new(number: u8, functions: Vec<(u8, Arc<dyn Function>)>) -> Self {
        Self::on_bus(number, Arc::default(), functions)
    }

    /// The same, with its secondary bus number told in `bus` as well.
    pub fn on_bus(number: u8, bus: Arc<LiveBus>, functions: Vec<(u8, Arc<dyn Function>)>) -> Self {
        let config = Mutex::new(power_on(number));
        bus.set(0);
        Self {
            name: format!("root port {number}"),
            number,
            bus,
            config,
            functions,
        }
    }

    /// Where the port stands on bus 0.
    pub fn devfn(&self) -> DevFn {
        DevFn::new(self.number, 0)
    }

    /// The bus the guest (or the firmware) gave to the port's link; 0 before that.
    pub fn secondary_bus(&self) -> u8 {
        self.lock().u8(bridge::SECONDARY_BUS)
    }

    /// The function of device 0 on the secondary bus. A link has one device.
    pub fn function(&self, devfn: DevFn) -> Option<&Arc<dyn Function>> {
        let wanted = (devfn.device() == 0).then(|| devfn.function())?;
        self.functions
            .iter()
            .find(|(number, _)| *number == wanted)
            .map(|(_, function)| function)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset_secondary(&self) -> Effect {
        let mut remaps = Vec::new();
        for (_, function) in &self.functions {
            if let Effect::Remap(more) = function.reset() {
                remaps.extend(more);
            }
        }
        Effect::Remap(remaps)
    }
}

impl Function for RootPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn read_config(&self, register: u16, data: &mut [u8]) {
        self.lock().read(register, data);
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        let resets = {
            let mut config = self.lock();
            let before = config.u16(bridge::BRIDGE_CONTROL);
            config.write(register, data);
            self.bus.set(config.u8(bridge::SECONDARY_BUS));
            config.u16(bridge::BRIDGE_CONTROL) & !before & bridge::SECONDARY_BUS_RESET != 0
        };
        if resets {
            self.reset_secondary()
        } else {
            Effect::None
        }
    }

    fn reset(&self) -> Effect {
        *self.lock() = power_on(self.number);
        self.bus.set(0);
        self.reset_secondary()
    }
}

fn power_on(number: u8) -> ConfigSpace {
    let mut config = ConfigSpace::new();
    config.set(header::VENDOR_ID, &VENDOR_DEVICE);
    config.set(header::CLASS_CODE, &CLASS);
    config.set(header::STATUS, &status::CAPABILITIES.to_le_bytes());
    config.set(header::HEADER_TYPE, &[1]);
    config.set(header::CAPABILITIES, &[EXPRESS_OFFSET as u8]);
    let commands = command::IO | command::MEMORY | command::BUS_MASTER | command::PARITY | command::SERR;
    config.allow_write(header::COMMAND, &(commands | command::INTX_DISABLE).to_le_bytes());
    config.allow_write(header::CACHE_LINE_SIZE, &[0xff]);
    config.allow_write(header::INTERRUPT_LINE, &[0xff]);
    config.allow_write(bridge::PRIMARY_BUS, &[0xff, 0xff, 0xff]);
    add_windows(&mut config);
    let control = 0x0003 | bridge::SECONDARY_BUS_RESET;
    config.allow_write(bridge::BRIDGE_CONTROL, &control.to_le_bytes());
    express::add_root_port(&mut config, EXPRESS_OFFSET, 0, number);
    acs::add(&mut config, ACS_OFFSET);
    config
}

/// The three windows (PCIe §7.5.1.3.6 to .9): I/O of 32 bits, memory, prefetchable memory of 64 bits; all
/// closed, that is with the base above the limit.
fn add_windows(config: &mut ConfigSpace) {
    config.set(bridge::IO_BASE, &[0xf1, 0x01]);
    config.allow_write(bridge::IO_BASE, &[0xf0, 0xf0]);
    config.allow_write(bridge::IO_BASE_UPPER, &[0xff; 4]);
    config.set(bridge::MEMORY_BASE, &[0xf0, 0xff, 0x00, 0x00]);
    config.allow_write(bridge::MEMORY_BASE, &[0xf0, 0xff, 0xf0, 0xff]);
    config.set(bridge::PREFETCH_BASE, &[0xf1, 0xff, 0x01, 0x00]);
    config.allow_write(bridge::PREFETCH_BASE, &[0xf0, 0xff, 0xf0, 0xff]);
    config.allow_write(bridge::PREFETCH_BASE_UPPER, &[0xff; 8]);
}

//! The root complex: bus 0, and which configuration cycle goes down which port.

use std::sync::Arc;

use crate::pci::address::{Bdf, DevFn};
use crate::pci::function::Function;
use crate::pci::host_bridge::HostBridge;
use crate::pci::image::Image;
use crate::pci::root_port::RootPort;
use crate::region::Effect;

/// Bus 0 with the host bridge and the root ports.
pub struct RootComplex {
    host_bridge: Arc<dyn Function>,
    ports: Vec<Arc<RootPort>>,
}

impl RootComplex {
    /// A root complex with these ports; a port's number is its device number.
    pub fn new(ports: Vec<Arc<RootPort>>) -> Self {
        Self {
            host_bridge: Arc::new(HostBridge::new()),
            ports,
        }
    }

    /// The root ports in the order of their numbers.
    pub fn ports(&self) -> &[Arc<RootPort>] {
        &self.ports
    }

    /// The functions of bus 0 that a guest can read without a trap, and what they show.
    pub fn images(&self) -> Vec<(DevFn, Arc<Image>)> {
        let image = |devfn| Some((devfn, self.on_root_bus(devfn)?.image()?));
        (0..32)
            .filter_map(|device| image(DevFn::new(device, 0)))
            .collect()
    }

    /// The device numbers of bus 0 at which nobody is, with what is read there: one page for all of them.
    pub fn images_of_nobody(&self) -> Vec<(DevFn, Arc<Image>)> {
        let Some(nobody) = Image::of_nobody() else {
            return Vec::new();
        };
        let places = (0..32).map(|device| DevFn::new(device, 0));
        places
            .filter(|devfn| self.on_root_bus(*devfn).is_none())
            .map(|devfn| (devfn, nobody.clone()))
            .collect()
    }

    /// Reads the configuration space of `bdf`: 1, 2 or 4 bytes, naturally aligned. Where no function
    /// answers, and for any other shape of access, all ones.
    pub fn read_config(&self, bdf: Bdf, register: u16, data: &mut [u8]) {
        match self.function(bdf) {
            Some(function) if well_formed(register, data.len()) => function.read_config(register, data),
            _ => data.fill(0xff),
        }
    }

    /// The 32 bits of configuration space at `register`, a multiple of 4; ones where no function answers.
    pub fn register(&self, bdf: Bdf, register: u16) -> u32 {
        let mut data = [0; 4];
        self.read_config(bdf, register, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes the configuration space of `bdf`, under the same rules.
    pub fn write_config(&self, bdf: Bdf, register: u16, data: &[u8]) -> Effect {
        match self.function(bdf) {
            Some(function) if well_formed(register, data.len()) => function.write_config(register, data),
            _ => Effect::None,
        }
    }

    /// The function that answers at `bdf` with the bus numbers as they are now.
    fn function(&self, bdf: Bdf) -> Option<Arc<dyn Function>> {
        if bdf.bus == 0 {
            return self.on_root_bus(bdf.devfn);
        }
        let port = self.ports.iter().find(|port| port.secondary_bus() == bdf.bus)?;
        port.function(bdf.devfn)
    }

    fn on_root_bus(&self, devfn: DevFn) -> Option<Arc<dyn Function>> {
        if devfn == DevFn::new(0, 0) {
            return Some(self.host_bridge.clone());
        }
        let port = self.ports.iter().find(|port| port.devfn() == devfn)?;
        Some(port.clone())
    }
}

/// A configuration request carries one aligned byte, word or double word (PCIe §2.2.4.2).
fn well_formed(register: u16, len: usize) -> bool {
    matches!(len, 1 | 2 | 4) && register < 4096 && usize::from(register) % len == 0
}

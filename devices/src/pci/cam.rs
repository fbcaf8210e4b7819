//! The configuration mechanism of PCI 3.0 §3.2.2.3.2: an address port at 0xCF8, a data port at 0xCFC.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::pci::address::{Bdf, DevFn};
use crate::pci::root_complex::RootComplex;
use crate::region::{Device, Effect};

/// First port of the pair.
pub const PORT: u16 = 0xcf8;
/// Ports of the mechanism: 4 for the address, 4 for the data.
pub const PORTS: u64 = 8;

const ENABLE: u32 = 1 << 31;
const DATA: u64 = 4;

/// Both ports, with the first 256 bytes of each function behind them.
pub struct Cam {
    root: Arc<RootComplex>,
    address: AtomicU32,
    /// The address port reads as ones.
    is_mute: bool,
}

impl Cam {
    /// The ports onto `root`.
    pub fn new(root: Arc<RootComplex>) -> Self {
        Self {
            root,
            address: AtomicU32::new(0),
            is_mute: false,
        }
    }

    /// The same for a guest that is to use ECAM for all of configuration space. Linux looks whether the address port
    /// reads back what was written (`pci_check_type1`, arch/x86/pci/direct.c), and does without the ports if not. Who does
    /// not look, as Linux's early quirks, finds them at work.
    pub fn mute(root: Arc<RootComplex>) -> Self {
        Self {
            is_mute: true,
            ..Self::new(root)
        }
    }

    /// What the data port `offset` (4 to 7) points at, if the address port enables it.
    fn target(&self, offset: u64) -> Option<(Bdf, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        if address & ENABLE == 0 || offset < DATA {
            return None;
        }
        let bdf = Bdf {
            bus: (address >> 16) as u8,
            devfn: DevFn::from_byte((address >> 8) as u8),
        };
        Some((bdf, (address & 0xfc) as u16 + (offset - DATA) as u16))
    }
}

impl Device for Cam {
    fn name(&self) -> &str {
        "pci cam"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let ([_, _, _, _], 0, false) = (&*data, offset, self.is_mute) {
            data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
        } else if let Some((bdf, register)) = self.target(offset) {
            self.root.read_config(bdf, register, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        if let (Ok(bytes), 0) = (data.try_into(), offset) {
            self.address.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
        } else if let Some((bdf, register)) = self.target(offset) {
            return self.root.write_config(bdf, register, data);
        }
        Effect::None
    }
}

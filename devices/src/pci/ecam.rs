//! Enhanced configuration access: configuration space as memory (PCIe §7.2.2).

use std::sync::Arc;

use crate::pci::address::{Bdf, DevFn};
use crate::pci::root_complex::RootComplex;
use crate::region::{Device, Effect};

/// Bytes of ECAM for one bus.
pub const BYTES_PER_BUS: u64 = 1 << 20;

/// The ECAM window of a segment, bus 0 first.
pub struct Ecam {
    root: Arc<RootComplex>,
}

impl Ecam {
    /// The window onto `root`.
    pub fn new(root: Arc<RootComplex>) -> Self {
        Self { root }
    }
}

impl Device for Ecam {
    fn name(&self) -> &str {
        "pci ecam"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let (bdf, register) = split(offset);
        self.root.read_config(bdf, register, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let (bdf, register) = split(offset);
        self.root.write_config(bdf, register, data)
    }
}

fn split(offset: u64) -> (Bdf, u16) {
    let bdf = Bdf {
        bus: (offset >> 20) as u8,
        devfn: DevFn::from_byte((offset >> 12) as u8),
    };
    (bdf, (offset & 0xfff) as u16)
}

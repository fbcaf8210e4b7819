//! Enhanced configuration access: configuration space as memory (PCIe §7.2.2).

use std::sync::Arc;

use crate::pci::address::{Bdf, DevFn};
use crate::pci::image::Image;
use crate::pci::root_complex::RootComplex;
use crate::region::{Device, Effect, MappedPiece, Region};

/// Bytes of ECAM for one bus.
pub const BYTES_PER_BUS: u64 = 1 << 20;
/// Where the number of a device's function stands in an address (PCIe §7.2.2, table 7-1).
const FUNCTION_SHIFT: u32 = 12;

/// The ECAM window of a segment, bus 0 first.
pub struct Ecam {
    root: Arc<RootComplex>,
}

impl Ecam {
    /// The window onto `root`.
    pub fn new(root: Arc<RootComplex>) -> Self {
        Self { root }
    }

    /// The window onto `root` as a region of `buses`. A guest reads the emulated functions of bus 0 in it without a trap,
    /// and `with_holes` the places between them, too, which a guest goes through that looks for functions here.
    pub fn region(root: Arc<RootComplex>, buses: u64, with_holes: bool) -> Arc<Region> {
        let mut images = root.images();
        if with_holes {
            images.extend(root.images_of_nobody());
        }
        let piece = |(devfn, backing): (DevFn, Arc<Image>)| MappedPiece {
            offset: u64::from(devfn.to_byte()) << FUNCTION_SHIFT,
            backing,
        };
        let pieces = images.into_iter().map(piece).collect();
        Region::with_images(Arc::new(Self::new(root)), buses * BYTES_PER_BUS, pieces)
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
        devfn: DevFn::from_byte((offset >> FUNCTION_SHIFT) as u8),
    };
    (bdf, (offset & 0xfff) as u16)
}

//! The expansion ROM: the function's own, a file in its place, or none.

use std::sync::{Arc, OnceLock};

use strait_devices::pci::rom_bar::{MAX_ROM_LEN, RomBar};
use strait_devices::region::Region;
use strait_devices::{Device, Effect};

use super::appearance::RomSource;
use crate::hardware::{Hardware, HardwareRegion};

/// The register and the region behind it.
pub(crate) fn rom(hardware: &Arc<dyn Hardware>, source: RomSource) -> Option<(RomBar, Arc<Region>)> {
    let (len, known) = match source {
        RomSource::Hidden => return None,
        RomSource::Hardware => {
            let len = hardware.region(HardwareRegion::Rom).len_bytes;
            (len.min(u64::from(MAX_ROM_LEN)) as usize, None)
        }
        RomSource::Bytes(bytes) => (bytes.len(), Some(bytes)),
    };
    if len == 0 {
        return None;
    }
    let register = RomBar::new(len);
    let device = RomDevice {
        name: format!("{} {}", hardware.name(), HardwareRegion::Rom),
        hardware: Arc::clone(hardware),
        len,
        bytes: known.map_or_else(OnceLock::new, OnceLock::from),
    };
    let region = Region::trapped(Arc::new(device), register.len_bytes());
    Some((register, region))
}

/// Answers for the ROM. The hardware's is read once, when the guest first looks: the host turns the ROM's
/// decoder on and off around each access (`vfio_pci_bar_rw`, drivers/vfio/pci/vfio_pci_rdwr.c), and few
/// guests ever look.
struct RomDevice {
    name: String,
    hardware: Arc<dyn Hardware>,
    len: usize,
    bytes: OnceLock<Arc<[u8]>>,
}

impl RomDevice {
    /// A ROM that cannot be read is one that nobody plugged in: all ones.
    fn load(&self) -> Arc<[u8]> {
        let mut bytes = vec![0xff; self.len];
        if let Err(error) = self.hardware.read(HardwareRegion::Rom, 0, &mut bytes) {
            log::warn!("cannot read {}, the guest finds none: {error}", self.name);
            bytes.fill(0xff);
        }
        bytes.into()
    }
}

impl Device for RomDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.bytes.get_or_init(|| self.load());
        let there = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
        let there = there.unwrap_or_default().iter().chain(std::iter::repeat(&0xff));
        for (byte, value) in data.iter_mut().zip(there) {
            *byte = *value;
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

//! The seam between the bus and one device function.

use std::sync::Arc;

use crate::pci::image::Image;
use crate::region::Effect;

/// One PCI Express function with its 4 KiB of configuration space.
///
/// The bus guarantees that an access is 1, 2 or 4 bytes, naturally aligned and inside the 4 KiB.
pub trait Function: Send + Sync {
    /// The name in logs: a host BDF, or what the function is.
    fn name(&self) -> &str;

    /// Reads configuration space at `register` (bytes, 0 to 4095).
    fn read_config(&self, register: u16, data: &mut [u8]);

    /// Writes configuration space; BARs that come, go or move are in the effect.
    fn write_config(&self, register: u16, data: &[u8]) -> Effect;

    /// Back to the state after power-on, with everything the guest set undone; BARs leave the map.
    fn reset(&self) -> Effect;

    /// A page of host memory that holds what [`read_config`](Self::read_config) would tell, at any time. None where
    /// reading must trap, as that of a physical function must.
    fn image(&self) -> Option<Arc<Image>> {
        None
    }

    /// Leaves the machine: nothing of the guest's reaches the device any more, and BARs leave the map.
    fn unplug(&self) -> Effect {
        self.reset()
    }
}

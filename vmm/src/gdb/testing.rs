//! What unit tests and the fuzz target show a debugger.

use strait_devices::GuestAddress;

use super::monitor::Scene;

/// A machine with a host bridge, and a device at 01:00.0 whose IOMMU leads each address a page further.
pub(super) struct Still;

impl Scene for Still {
    fn memory(&self) -> String {
        String::new()
    }
    fn slots(&self) -> String {
        String::new()
    }
    fn pci(&self) -> String {
        "00:00.0 host bridge".to_owned()
    }
    fn interrupts(&self) -> String {
        String::new()
    }
    fn devices(&self) -> String {
        String::new()
    }
    fn viommu(&self) -> String {
        String::new()
    }
    fn translate(&self, requester: u16, iova: u64) -> Option<GuestAddress> {
        let page = 0x1000;
        (requester == 0x100).then_some(GuestAddress(iova.wrapping_add(page)))
    }
}

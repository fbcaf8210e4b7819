//! The virtual functions of a physical one, as sysfs links to them.

use super::HostBdf;
use super::sysfs::{Root, link_name};

/// The functions behind the links, of which the kernel makes one with each.
pub(super) fn virtual_links(root: &Root, bdf: HostBdf) -> impl Iterator<Item = HostBdf> {
    let folder = root.function(bdf);
    // NumVFs has 16 bits (SR-IOV 1.1 §3.3.7).
    (0..=u16::MAX).map_while(move |index| {
        let name = link_name(&folder.join(format!("virtfn{index}"))).ok()??;
        name.parse().ok()
    })
}

/// Those that are there, also while the kernel makes them, when it does not tell `sriov_numvfs` (`sriov_numvfs_show` takes
/// the lock of the physical function).
pub(super) fn count_virtual_functions(root: &Root, bdf: HostBdf) -> u32 {
    virtual_links(root, bdf).count() as u32
}

//! A function in a few words.

use strait_vfio::host::Function;

/// Names and marks of a function in a few words, for a line of a tree or a group.
pub(super) fn short(function: &Function) -> String {
    let mut parts = vec![function.pci.driver_name().to_owned()];
    parts.extend(function.interfaces.iter().cloned());
    parts.extend(function.disks.iter().cloned());
    if let Some(sriov) = function.sriov {
        parts.push(format!("VFs {}/{}", sriov.active, sriov.max));
    }
    if function.is_busy() {
        parts.push("in use".to_owned());
    }
    parts.join(", ")
}

//! A function as `--json` shows it.

use serde::Serialize;
use strait_vfio::host::{Function, PciIds, Use};

/// The keys of one function.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    bdf: String,
    class: String,
    class_code: String,
    vendor: String,
    device: String,
    vendor_name: Option<String>,
    device_name: Option<String>,
    driver: Option<String>,
    driver_override: Option<String>,
    drivers_available: Vec<String>,
    iommu_group: Option<u32>,
    reset_methods: Vec<String>,
    numa_node: Option<u32>,
    sriov: Option<ListedSriov>,
    physical_function: Option<String>,
    parent: Option<String>,
    interfaces: Vec<String>,
    disks: Vec<String>,
    uses: Vec<ListedUse>,
    /// Whether `strait host bind` refuses it.
    busy: bool,
}

#[derive(Debug, Serialize)]
struct ListedSriov {
    active: u32,
    max: u32,
}

#[derive(Debug, Serialize)]
struct ListedUse {
    says: String,
    blocking: bool,
}

impl Listed {
    pub(super) fn new(function: &Function, ids: &PciIds) -> Self {
        let pci = &function.pci;
        Self {
            bdf: pci.bdf.to_string(),
            class: ids.class(pci),
            class_code: format!("{:06x}", pci.class),
            vendor: format!("{:04x}", pci.vendor),
            device: format!("{:04x}", pci.device),
            vendor_name: ids.vendor(pci).map(str::to_owned),
            device_name: ids.device(pci).map(str::to_owned),
            driver: pci.driver.clone(),
            driver_override: function.override_driver.clone(),
            drivers_available: function.drivers.clone(),
            iommu_group: pci.group,
            reset_methods: function.reset_methods.clone(),
            numa_node: function.numa_node,
            sriov: function.sriov.map(|sriov| ListedSriov {
                active: sriov.active,
                max: sriov.max,
            }),
            physical_function: function.physical_function.map(|bdf| bdf.to_string()),
            parent: function.parent.map(|bdf| bdf.to_string()),
            interfaces: function.interfaces.clone(),
            disks: function.disks.clone(),
            uses: function.uses.iter().map(ListedUse::new).collect(),
            busy: function.is_busy(),
        }
    }
}

impl ListedUse {
    fn new(one: &Use) -> Self {
        Self {
            says: one.to_string(),
            blocking: one.is_blocking(),
        }
    }
}

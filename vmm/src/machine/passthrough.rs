//! The passed devices of a machine: opened, and let at the guest's memory.

use std::sync::Arc;

use strait_devices::address_space::AddressSpace;
use strait_vfio::Device;
use strait_vfio::domain::{Container, Identity};
use vfio_ioctls::VfioDeviceFd;

use super::RunError;
use crate::config::DeviceConfig;
use crate::kvm::Vm;

/// Open devices. Without a virtual IOMMU they are all in one container that holds the guest's RAM at the
/// guest's own addresses; behind one, each is in its own.
pub(super) struct HostDevices {
    devices: Vec<Arc<Device>>,
}

impl HostDevices {
    /// Opens each device, then maps all guest RAM for their DMA; from then on the container follows every
    /// change of the memory map.
    ///
    /// # Errors
    /// When a device cannot be opened, or RAM not be mapped for DMA. What was opened is released.
    pub(super) fn open(configs: &[DeviceConfig], vm: &Vm, space: &AddressSpace) -> Result<Self, RunError> {
        let kvm = VfioDeviceFd::new_from_kvm(vm.vfio_device()?);
        let container = Container::open(Some(Arc::new(kvm)))?;
        let open = |config: &DeviceConfig| Device::open(&container, config.host);
        let devices: Vec<_> = configs.iter().map(open).collect::<Result<_, _>>()?;
        let has_peers = devices.len() > 1;
        space.add_listener(Arc::new(Identity::new(container, has_peers)))?;
        Ok(Self { devices })
    }

    /// Opens each device into a container of its own, in which nothing is mapped.
    ///
    /// # Errors
    /// When a device cannot be opened. What was opened is released.
    pub(super) fn open_apart(
        configs: &[DeviceConfig],
        vm: &Vm,
    ) -> Result<(Self, Vec<Arc<Container>>), RunError> {
        let kvm = Arc::new(VfioDeviceFd::new_from_kvm(vm.vfio_device()?));
        let (mut devices, mut containers) = (Vec::new(), Vec::new());
        for config in configs {
            let container = Container::open(Some(kvm.clone()))?;
            devices.push(Device::open(&container, config.host)?);
            containers.push(container);
        }
        Ok((Self { devices }, containers))
    }

    /// The devices in the order they were given.
    pub(super) fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }
}

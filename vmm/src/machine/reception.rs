//! How a device is taken in that comes while the guest runs, on the porter's thread: all that can fail.

use std::sync::Arc;

use strait_devices::pci::firmware::Room;
use strait_vfio::host::{Host, HostBdf, Root, RunningKernel};
use strait_vfio::{Device, GroupListener};

use super::error::RunError;
use super::host::{self, CheckedHost};
use super::iommu::Iommu;
use super::managed::Borrowed;
use super::passthrough::{self, Opened};
use super::seat::Seat;
use crate::config::{Config, DeviceConfig};
use crate::control::Ticket;
use crate::open_files;
use crate::signals::Signals;
use crate::user::User;

/// What is needed for a device to come.
#[derive(Clone)]
pub(super) struct Reception {
    /// How many slots there are for devices to come, behind the last ports.
    pub(super) slots: u8,
    /// What each slot has for its BARs at least.
    pub(super) room: Room,
    /// KVM, which must know the groups.
    pub(super) groups: Arc<dyn GroupListener>,
    /// All of the guest's RAM in bytes, to be locked for the first device.
    pub(super) memory_bytes: u64,
    /// Behind a virtual IOMMU each device has an address space of its own.
    pub(super) apart: bool,
    /// An end of the machine is an end of waiting for a device.
    pub(super) signals: Arc<Signals>,
}

/// A device that is on its way.
pub(super) struct Coming {
    pub(super) ticket: Ticket,
    pub(super) port: u8,
    pub(super) configs: Vec<DeviceConfig>,
}

impl Reception {
    /// None where the guest was made without slots for devices to come.
    pub(super) fn new(
        config: &Config,
        host: &CheckedHost,
        groups: Arc<dyn GroupListener>,
        user: &User,
    ) -> Option<Self> {
        let slots = config.hotplug.map_or(0, |hotplug| hotplug.slots);
        (slots > 0).then(|| Self {
            slots,
            room: host.room,
            groups,
            memory_bytes: config.memory.size.bytes(),
            apart: config.viommu.is_some(),
            signals: user.signals.clone(),
        })
    }

    /// Takes devices from the host, opens them, and lets them reach memory. `present` are in the guest.
    ///
    /// # Errors
    /// What is in the way, in the words of a start. All is as before then.
    pub(super) fn open(
        &self,
        wished: &[(DeviceConfig, Seat)],
        present: &[HostBdf],
        iommu: &dyn Iommu,
    ) -> Result<Vec<Opened>, RunError> {
        let managed = wished.iter().filter(|(config, _)| config.managed);
        let borrowed = Borrowed::take(managed.map(|(config, _)| config.host).collect())?;
        let shared = iommu.container();
        let devices: Vec<HostBdf> = wished.iter().map(|(config, _)| config.host).collect();
        self.check(&devices, present, shared.is_some())?;
        let signals = &self.signals;
        let opened = passthrough::open_into(shared, wished, &self.groups, self.apart, signals, &borrowed)?;
        iommu.admit(&opened, signals)?;
        let devices: Vec<Arc<Device>> = opened.iter().map(|opened| opened.device.clone()).collect();
        Device::freshen(&devices);
        let vectors: Vec<u32> = devices
            .iter()
            .map(|device| passthrough::vectors(device))
            .collect();
        open_files::check(&vectors);
        Ok(opened)
    }

    /// The checks of a start. RAM that is locked already is not counted again.
    fn check(&self, devices: &[HostBdf], present: &[HostBdf], is_locked: bool) -> Result<(), RunError> {
        let memory = if is_locked { 0 } else { self.memory_bytes };
        let root = Root::real();
        strait_vfio::host::check(Host::new(&root, &RunningKernel), devices, memory)?;
        if self.apart {
            let all: Vec<HostBdf> = present.iter().chain(devices).copied().collect();
            host::check_groups(&root, &all)?;
        }
        Ok(())
    }
}

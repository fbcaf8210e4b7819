//! A virtual machine: what is set up once, before its vCPUs.

use std::io;
use std::sync::Arc;

use kvm_bindings::kvm_device_type_KVM_DEV_TYPE_VFIO as KVM_DEV_TYPE_VFIO;
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, kvm_create_device, kvm_enable_cap};
use kvm_bindings::{KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS};
use kvm_ioctls::VmFd;
use strait_devices::irq::ioapic::PINS;

use super::irq::GsiRouter;
use super::ring::Ring;
use super::statistics::Statistics;
use super::system::System;
use super::vfio::VfioGroups;
use crate::layout;

/// A step of setting up a virtual machine that failed.
#[derive(Debug, thiserror::Error)]
#[error("KVM cannot {step}")]
pub struct VmError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// A virtual machine of KVM, without memory and CPUs at first.
pub struct Vm {
    fd: Arc<VmFd>,
    ring: Arc<Ring>,
    router: Arc<GsiRouter>,
}

impl Vm {
    /// A virtual machine with local APICs and GSIs 0 to 23 reserved for our I/O APIC.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn new(system: &System) -> Result<Self, VmError> {
        let fd = system
            .kvm()
            .create_vm()
            .map_err(failed("create a virtual machine"))?;
        fd.set_tss_address(layout::KVM_TSS.0 as usize)
            .map_err(failed("place its task state segment"))?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP.0)
            .map_err(failed("place its identity map"))?;
        enable(&fd, KVM_CAP_SPLIT_IRQCHIP, u64::from(PINS))
            .map_err(failed("split the interrupt controller"))?;
        let x2apic = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        enable(&fd, KVM_CAP_X2APIC_API, u64::from(x2apic)).map_err(failed("use 32-bit APIC ids"))?;
        let fd = Arc::new(fd);
        Ok(Self {
            router: Arc::new(GsiRouter::new(fd.clone())),
            fd,
            ring: Arc::default(),
        })
    }

    /// The one owner of its interrupt routes, for an ioctl replaces all of them. It stays through a reset of the
    /// guest.
    pub fn router(&self) -> &Arc<GsiRouter> {
        &self.router
    }

    /// What KVM counts of it.
    ///
    /// # Errors
    /// When the kernel counts nothing that it tells.
    pub fn statistics(&self) -> io::Result<Statistics> {
        Statistics::of(&*self.fd)
    }

    /// The ioctls of the virtual machine.
    pub(super) fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// The ring of writes that the kernel noted down.
    pub(super) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The device through which KVM learns of VFIO groups, so that it honours non-coherent DMA
    /// (virt/kvm/vfio.c).
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn vfio_groups(&self) -> Result<VfioGroups, VmError> {
        let mut device = kvm_create_device {
            type_: KVM_DEV_TYPE_VFIO,
            fd: 0,
            flags: 0,
        };
        let device = self.fd.create_device(&mut device);
        let device = device.map_err(failed("create its VFIO device"))?;
        Ok(VfioGroups { device })
    }
}

pub(super) fn failed(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |errno| VmError {
        step,
        source: errno.into(),
    }
}

fn enable(fd: &VmFd, cap: u32, argument: u64) -> Result<(), kvm_ioctls::Error> {
    fd.enable_cap(&kvm_enable_cap {
        cap,
        args: [argument, 0, 0, 0],
        ..Default::default()
    })
}

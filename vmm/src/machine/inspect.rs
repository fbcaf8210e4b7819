//! What a debugger's user can ask of a machine that stands still.

use std::fmt::Write as _;
use std::sync::Arc;

use strait_devices::GuestAddress;
use strait_devices::address_space::AddressSpace;
use strait_devices::dma::{Iova, RequesterId};
use strait_devices::irq::ioapic::Ioapic;
use strait_devices::pci::{Bdf, DevFn, RootComplex};

use super::board::Board;
use super::iommu::Iommu;
use super::platform::Platform;
use crate::gdb::Scene;
use crate::kvm::slots::MemorySlots;

/// Registers of a function's header (PCIe §7.5.1.1).
const IDS: u16 = 0x00;
const COMMAND: u16 = 0x04;
const CLASS: u16 = 0x08;

/// Nobody answers.
const NOBODY: u32 = 0xffff_ffff;

/// A machine, seen from outside while no vCPU runs.
pub(super) struct Still {
    space: Arc<AddressSpace>,
    slots: Arc<MemorySlots>,
    iommu: Arc<dyn Iommu>,
    ioapic: Arc<Ioapic>,
    root: Arc<RootComplex>,
    last_bus: u8,
    devices: Vec<String>,
}

impl Platform {
    /// The machine with its devices as they are now.
    pub(super) fn scene(&self, board: &Board) -> Still {
        let devices = self.passed.iter().map(|passed| {
            let (bus, function) = (passed.seat.port, passed.seat.function);
            format!("{} behind root port {bus}, function {function}", passed.name)
        });
        Still {
            space: self.space.clone(),
            slots: self.slots.clone(),
            iommu: self.iommu.clone(),
            ioapic: board.ioapic.clone(),
            root: board.root().clone(),
            last_bus: self.ports,
            devices: devices.collect(),
        }
    }
}

impl Scene for Still {
    fn memory(&self) -> String {
        self.space.to_string()
    }

    fn slots(&self) -> String {
        self.slots.to_string()
    }

    /// Asks every function that a guest can find; a passed one is asked itself.
    fn pci(&self) -> String {
        let mut text = String::new();
        for bus in 0..=self.last_bus {
            for devfn in (0..=u8::MAX).map(DevFn::from_byte) {
                let bdf = Bdf { bus, devfn };
                let register = |register| self.root.register(bdf, register);
                let ids = register(IDS);
                if ids == NOBODY {
                    continue;
                }
                let (command, class) = (register(COMMAND) & 0xffff, register(CLASS) >> 8);
                let _ = writeln!(
                    text,
                    "{bdf} {:04x}:{:04x} class {class:06x} command {command:#06x}",
                    ids & 0xffff,
                    ids >> 16
                );
            }
        }
        text
    }

    fn interrupts(&self) -> String {
        self.ioapic.to_string()
    }

    fn devices(&self) -> String {
        match self.devices.is_empty() {
            true => "no device is passed through".to_owned(),
            false => self.devices.join("\n"),
        }
    }

    fn viommu(&self) -> String {
        match self.iommu.report() {
            text if text.is_empty() => "the guest has no IOMMU".to_owned(),
            text => text,
        }
    }

    fn translate(&self, requester: u16, iova: u64) -> Option<GuestAddress> {
        self.iommu.translate(RequesterId(requester), Iova(iova))
    }
}

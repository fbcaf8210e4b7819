//! What a machine asks of whatever stands between its devices and its memory.

use std::sync::Arc;

use strait_devices::address_space::AddressSpace;
use strait_devices::dma::{Iova, RequesterId};
use strait_devices::irq::MsiRouter;
use strait_devices::pci::Upstream;
use strait_devices::{Device, GuestAddress};

use strait_vfio::Container;

use crate::events::Events;
use crate::kvm::Vm;
use crate::machine::error::RunError;
use crate::machine::passthrough::{Opened, Passed};
use crate::memory::GuestRam;
use crate::signals::Signals;
use crate::user::User;

/// What stands between devices and memory, with what stays of it through a reset of the guest.
pub(in crate::machine) trait Iommu: Send + Sync {
    /// Where the I/O APIC's messages go.
    fn ioapic_router(&self) -> Arc<dyn MsiRouter>;

    /// What root port `number` on bus 0 reports to.
    fn upstream(&self, number: u8) -> Upstream;

    /// The container that a device which comes shares with those that are there; none where it gets its own.
    fn container(&self) -> Option<Arc<Container>>;

    /// Lets devices that come reach memory, or finds that they can. It may take as long as all RAM takes to be locked.
    ///
    /// # Errors
    /// When they cannot; a signal that ends the machine ends this, too.
    fn admit(&self, opened: &[Opened], signals: &Arc<Signals>) -> Result<(), RunError>;

    /// Their ways to CPUs and memory, once they are admitted.
    fn connect(&self, opened: Vec<Opened>) -> Vec<Passed>;

    /// Devices have left: where none is there any more, no memory stays locked for them.
    fn vacate(&self);

    /// The machine is at its end: what takes long is not waited for any more.
    fn give_up(&self);

    /// The registers at [`layout::VTD`](crate::layout::VTD), if there are any.
    fn registers(&self) -> Option<Arc<dyn Device>>;

    /// The state after power-on. The devices are reset before.
    fn reset(&self);

    /// What ACPI tells of it.
    fn acpi_tables(&self) -> Vec<Vec<u8>>;

    /// What the guest asked of it and what that cost, a number a line.
    fn report(&self) -> String;

    /// Where an I/O address leads for a device, as far as the guest's tables tell; nowhere where there is no unit.
    fn translate(&self, requester: RequesterId, iova: Iova) -> Option<GuestAddress>;
}

/// What the devices are connected to.
pub(in crate::machine) struct Surroundings<'a> {
    pub(in crate::machine) vm: &'a Vm,
    pub(in crate::machine) space: &'a Arc<AddressSpace>,
    pub(in crate::machine) ram: &'a Arc<GuestRam>,
    pub(in crate::machine) user: &'a User,
    pub(in crate::machine) events: &'a Arc<Events>,
    /// Root ports, with numbers from 1 on.
    pub(in crate::machine) ports: u8,
}

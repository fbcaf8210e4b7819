//! Interrupt routes: the GSI table of a virtual machine, and irqfds that run along it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi};
use kvm_ioctls::VmFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strait_devices::Chain;
use strait_devices::irq::ioapic::PINS;
use strait_devices::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use strait_devices::lock;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::open_files;

/// Entries in a virtual machine's GSI table (KVM_MAX_IRQ_ROUTES, include/linux/kvm_host.h).
const MAX_ROUTES: u32 = 4096;

/// A route that cannot be had or set.
#[derive(Debug, thiserror::Error)]
enum GsiError {
    #[error("all {MAX_ROUTES} interrupt routes of the virtual machine are in use")]
    Exhausted,
    #[error("cannot make an event for an interrupt{}", open_files::hint(.0))]
    Event(#[source] io::Error),
    #[error("KVM refuses a table of {0} interrupt routes")]
    Table(usize, #[source] io::Error),
    #[error("KVM cannot connect an event to interrupt route {0}")]
    Connect(u32, #[source] io::Error),
}

/// Routes of one virtual machine. GSIs below [`PINS`] are the I/O APIC's.
pub struct GsiRouter {
    shared: Arc<Shared>,
}

struct Shared {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

/// The kernel takes the whole table at once, so it is handed over with all that is marked, whoever marked it: a
/// route whose owner has not committed yet goes its new way a little earlier, which no owner can tell.
#[derive(Default)]
struct Table {
    /// By GSI; a GSI without an entry delivers nothing.
    messages: Vec<Option<MsiMessage>>,
    free: BTreeSet<u32>,
    /// The kernel does not know all entries yet.
    is_stale: bool,
}

impl Table {
    fn mark(&mut self, gsi: u32, message: Option<MsiMessage>) {
        let entry = &mut self.messages[gsi as usize];
        self.is_stale |= *entry != message;
        *entry = message;
    }
}

impl GsiRouter {
    /// A table without routes: KVM starts a split machine with none.
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        let table = Table {
            messages: vec![None; usize::from(PINS)],
            ..Table::default()
        };
        Self {
            shared: Arc::new(Shared {
                vm,
                table: Mutex::new(table),
            }),
        }
    }
}

impl MsiRouter for GsiRouter {
    fn send(&self, message: MsiMessage) {
        let msi = kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        // An error means that no local APIC takes the message; a bus would lose it as well.
        if let Err(errno) = self.shared.vm.signal_msi(msi) {
            log::debug!("Message {message:x?} reaches no CPU: {errno}");
        }
    }

    fn set_pin(&self, pin: u8, message: Option<MsiMessage>) {
        self.shared.lock().mark(u32::from(pin), message);
    }

    fn commit(&self) -> Result<(), RouteError> {
        Ok(self.shared.hand_over()?)
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(GsiError::Event)?;
        let gsi = self.shared.allocate()?;
        Ok(Arc::new(GsiRoute {
            gsi,
            event,
            state: Mutex::default(),
            shared: self.shared.clone(),
        }))
    }
}

impl Shared {
    fn allocate(&self) -> Result<u32, GsiError> {
        let mut table = self.lock();
        if let Some(gsi) = table.free.pop_first() {
            return Ok(gsi);
        }
        let gsi = table.messages.len() as u32;
        if gsi == MAX_ROUTES {
            return Err(GsiError::Exhausted);
        }
        table.messages.push(None);
        Ok(gsi)
    }

    /// Hands all of the table to the kernel, if it does not know it yet.
    fn hand_over(&self) -> Result<(), GsiError> {
        let mut table = self.lock();
        if !table.is_stale {
            return Ok(());
        }
        let entries: Vec<_> = (0..).zip(&table.messages).filter_map(entry).collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| GsiError::Exhausted)?;
        let refused = |errno: kvm_ioctls::Error| GsiError::Table(entries.len(), errno.into());
        self.vm.set_gsi_routing(&routing).map_err(refused)?;
        table.is_stale = false;
        Ok(())
    }

    fn free(&self, gsi: u32) {
        let mut table = self.lock();
        // The kernel may keep the entry: nothing is connected to it.
        table.messages[gsi as usize] = None;
        table.free.insert(gsi);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

fn entry((gsi, message): (u32, &Option<MsiMessage>)) -> Option<kvm_irq_routing_entry> {
    let message = message.as_ref().filter(|message| is_interrupt(message))?;
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    Some(entry)
}

/// For one message without an APIC id where bits 63:40 of the address hold its upper part, KVM refuses the
/// whole table, and with it every other device's routes (`kvm_msi_route_invalid`, arch/x86/kvm/irq.c). A
/// guest can write anything; on a bus such a message is a write to memory and interrupts nobody.
fn is_interrupt(message: &MsiMessage) -> bool {
    message.address >> 32 & 0xff == 0
}

/// One vector's way. While it is masked the event is not connected, so that the kernel keeps what arrives and
/// delivers it once on the next connect (irqfd assignment polls, virt/kvm/eventfd.c).
///
/// Locks: the way's state, then the table.
struct GsiRoute {
    gsi: u32,
    event: EventFd,
    state: Mutex<RouteState>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct RouteState {
    is_wanted: bool,
    is_connected: bool,
}

impl GsiRoute {
    /// The table before the event that needs it.
    fn connect(&self, state: &mut RouteState) -> Result<(), GsiError> {
        self.shared.hand_over()?;
        if !state.is_connected {
            let connected = self.shared.vm.register_irqfd(&self.event, self.gsi);
            connected.map_err(|errno| GsiError::Connect(self.gsi, errno.into()))?;
            state.is_connected = true;
        }
        Ok(())
    }

    fn disconnect(&self, state: &mut RouteState) -> Result<(), GsiError> {
        if state.is_connected {
            let cut = self.shared.vm.unregister_irqfd(&self.event, self.gsi);
            cut.map_err(|errno| GsiError::Connect(self.gsi, errno.into()))?;
            state.is_connected = false;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, RouteState> {
        lock(&self.state)
    }
}

impl MsiRoute for GsiRoute {
    /// The table keeps the message of a masked route: most are unmasked with the same one.
    fn set(&self, message: Option<MsiMessage>) {
        let mut state = self.state();
        state.is_wanted = message.is_some();
        if message.is_some() {
            self.shared.lock().mark(self.gsi, message);
        }
    }

    fn commit(&self) -> Result<(), RouteError> {
        let mut state = self.state();
        match state.is_wanted {
            true => self.connect(&mut state)?,
            false => self.disconnect(&mut state)?,
        }
        Ok(())
    }

    fn event(&self) -> BorrowedFd<'_> {
        borrow(&self.event)
    }

    fn pending(&self) -> bool {
        let state = self.state();
        let mut fds = [PollFd::from_borrowed_fd(self.event(), PollFlags::IN)];
        !state.is_connected && poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn discard(&self) -> bool {
        let state = self.state();
        !state.is_connected && self.event.read().is_ok()
    }
}

impl Drop for GsiRoute {
    fn drop(&mut self) {
        if let Err(error) = self.disconnect(&mut self.state()) {
            log::warn!("{}", Chain(&error));
        }
        self.shared.free(self.gsi);
    }
}

/// The event's descriptor, for those who take one.
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `event` lives, which the lifetime ties to it.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(address: u64) -> bool {
        entry((24, &Some(MsiMessage { address, data: 0x41 }))).is_some()
    }

    #[test]
    fn the_kernel_is_told_only_of_what_is_new() {
        let message = |data| {
            Some(MsiMessage {
                address: 0xfee0_0000,
                data,
            })
        };
        let mut table = Table {
            messages: vec![None; 2],
            ..Table::default()
        };
        table.mark(0, None);
        assert!(!table.is_stale);
        table.mark(0, message(1));
        table.mark(0, message(1));
        assert!(table.is_stale, "the kernel does not know it yet");
        table.is_stale = false;
        table.mark(0, message(1));
        assert!(!table.is_stale);
        table.mark(1, message(1));
        assert!(table.is_stale);
    }

    #[test]
    fn a_message_that_kvm_refuses_is_left_out_of_the_table() {
        assert!(routed(0xfee0_1000));
        assert!(routed(0x0001_2300_fee0_1000), "an APIC id of 32 bits");
        assert!(!routed(0x0000_0001_fee0_1000));
        assert!(!routed(u64::MAX));
    }
}

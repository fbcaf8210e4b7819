//! Interrupt routes: the GSI table of a virtual machine, and irqfds that run along it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi};
use kvm_ioctls::VmFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strait_devices::irq::ioapic::PINS;
use strait_devices::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::vm::Vm;

/// Entries in a virtual machine's GSI table (KVM_MAX_IRQ_ROUTES, include/linux/kvm_host.h).
const MAX_ROUTES: u32 = 4096;

/// A route that cannot be had or set.
#[derive(Debug, thiserror::Error)]
enum GsiError {
    #[error("All {MAX_ROUTES} interrupt routes of the virtual machine are in use")]
    Exhausted,
    #[error("Cannot make an event for an interrupt")]
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

#[derive(Default)]
struct Table {
    /// By GSI; a GSI without an entry delivers nothing.
    messages: Vec<Option<MsiMessage>>,
    free: BTreeSet<u32>,
}

impl GsiRouter {
    /// An empty table.
    pub fn new(vm: &Vm) -> Self {
        let table = Table {
            messages: vec![None; usize::from(PINS)],
            free: BTreeSet::new(),
        };
        Self {
            shared: Arc::new(Shared {
                vm: vm.fd().clone(),
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
        if let Err(error) = self.shared.set(u32::from(pin), message) {
            log::error!("{error}: I/O APIC pin {pin} may not work");
        }
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(GsiError::Event)?;
        let gsi = self.shared.allocate()?;
        let connected = Mutex::new(false);
        Ok(Arc::new(GsiRoute {
            gsi,
            event,
            connected,
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

    /// Changes one entry and hands the table to the kernel, unless the entry is that already.
    fn set(&self, gsi: u32, message: Option<MsiMessage>) -> Result<(), GsiError> {
        let mut table = self.lock();
        if table.messages[gsi as usize] == message {
            return Ok(());
        }
        table.messages[gsi as usize] = message;
        let entries: Vec<_> = (0..).zip(&table.messages).filter_map(entry).collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| GsiError::Exhausted)?;
        let refused = |errno: kvm_ioctls::Error| GsiError::Table(entries.len(), errno.into());
        self.vm.set_gsi_routing(&routing).map_err(refused)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry((gsi, message): (u32, &Option<MsiMessage>)) -> Option<kvm_irq_routing_entry> {
    let message = message.as_ref()?;
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

/// One vector's way: event, GSI, message. While masked its event is not connected, so that the kernel
/// keeps what arrives and delivers it once on the next connect (irqfd assignment polls, virt/kvm/eventfd.c).
struct GsiRoute {
    gsi: u32,
    event: EventFd,
    connected: Mutex<bool>,
    shared: Arc<Shared>,
}

impl MsiRoute for GsiRoute {
    fn set(&self, message: Option<MsiMessage>) -> Result<(), RouteError> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |errno: kvm_ioctls::Error| GsiError::Connect(self.gsi, errno.into());
        if let Some(message) = message {
            self.shared.set(self.gsi, Some(message))?;
            if !*connected {
                self.shared
                    .vm
                    .register_irqfd(&self.event, self.gsi)
                    .map_err(refused)?;
            }
        } else if *connected {
            self.shared
                .vm
                .unregister_irqfd(&self.event, self.gsi)
                .map_err(refused)?;
        }
        *connected = message.is_some();
        Ok(())
    }

    fn event(&self) -> BorrowedFd<'_> {
        borrow(&self.event)
    }

    fn pending(&self) -> bool {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fds = [PollFd::from_borrowed_fd(self.event(), PollFlags::IN)];
        !*connected && poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for GsiRoute {
    fn drop(&mut self) {
        if let Err(error) = self.set(None) {
            log::warn!("{error}");
        }
        let mut table = self.shared.lock();
        table.messages[self.gsi as usize] = None;
        table.free.insert(self.gsi);
    }
}

/// The event's descriptor, for those who take one.
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `event` lives, which the lifetime ties to it.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

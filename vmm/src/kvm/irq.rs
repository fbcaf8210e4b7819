//! Interrupt routes: the GSI table of a virtual machine, and irqfds that run along it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi};
use kvm_ioctls::VmFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strait_devices::irq::ioapic::PINS;
use strait_devices::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::vm::Vm;
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

#[derive(Default)]
struct Table {
    /// By GSI; a GSI without an entry delivers nothing.
    messages: Vec<Option<MsiMessage>>,
    free: BTreeSet<u32>,
    /// Within [`MsiRouter::together`].
    held: Option<Held>,
}

/// What one thread holds back. What other threads set meanwhile is in effect when they are told so.
struct Held {
    by: ThreadId,
    /// The kernel does not know all entries yet.
    is_stale: bool,
    /// To be connected when it does.
    wires: Vec<Arc<Wire>>,
}

impl Table {
    /// Begins to hold back for this thread; false where another one does already.
    fn hold(&mut self) -> bool {
        let me = thread::current().id();
        let held = self.held.get_or_insert(Held {
            by: me,
            is_stale: false,
            wires: Vec::new(),
        });
        held.by == me
    }

    /// What this thread holds back.
    fn held_here(&mut self) -> Option<&mut Held> {
        self.held
            .as_mut()
            .filter(|held| held.by == thread::current().id())
    }

    /// Changes one entry. True if the kernel is to be told at once.
    fn change(&mut self, gsi: u32, message: Option<MsiMessage>) -> bool {
        let entry = &mut self.messages[gsi as usize];
        let is_new = *entry != message;
        *entry = message;
        match self.held_here() {
            Some(held) => {
                held.is_stale |= is_new;
                false
            }
            // The entry may be as it is because a thread that holds it back made it so.
            None => is_new || self.is_stale(),
        }
    }

    fn is_stale(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_stale)
    }
}

impl GsiRouter {
    /// An empty table.
    pub fn new(vm: &Vm) -> Self {
        let table = Table {
            messages: vec![None; usize::from(PINS)],
            free: BTreeSet::new(),
            held: None,
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
        let state = Mutex::default();
        Ok(Arc::new(GsiRoute {
            wire: Arc::new(Wire { gsi, event, state }),
            shared: self.shared.clone(),
        }))
    }

    fn together(&self, settings: &mut dyn FnMut()) {
        let holds = self.shared.lock().hold();
        settings();
        if holds && let Err(error) = self.shared.release() {
            log::error!("{error}: interrupts may not arrive");
        }
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
        match table.change(gsi, message) {
            true => self.hand_over(&mut table),
            false => Ok(()),
        }
    }

    /// All of the table, also what another thread holds back.
    fn hand_over(&self, table: &mut Table) -> Result<(), GsiError> {
        let entries: Vec<_> = (0..).zip(&table.messages).filter_map(entry).collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| GsiError::Exhausted)?;
        let refused = |errno: kvm_ioctls::Error| GsiError::Table(entries.len(), errno.into());
        self.vm.set_gsi_routing(&routing).map_err(refused)?;
        if let Some(held) = &mut table.held {
            held.is_stale = false;
        }
        Ok(())
    }

    /// Connects a wire, or notes it for when its entry is known.
    fn connect(&self, wire: &Arc<Wire>, state: &mut WireState) -> Result<(), GsiError> {
        if state.is_connected {
            return Ok(());
        }
        if let Some(held) = self.lock().held_here() {
            held.wires.push(wire.clone());
            return Ok(());
        }
        let connected = self.vm.register_irqfd(&wire.event, wire.gsi);
        connected.map_err(|errno| GsiError::Connect(wire.gsi, errno.into()))?;
        state.is_connected = true;
        Ok(())
    }

    /// Hands over what was held back, the table before the wires that need it.
    fn release(&self) -> Result<(), GsiError> {
        let mut table = self.lock();
        let is_stale = table.is_stale();
        let wires = table.held.take().map_or_else(Vec::new, |held| held.wires);
        if is_stale {
            self.hand_over(&mut table)?;
        }
        drop(table);
        for wire in wires {
            let mut state = wire.state();
            if state.is_wanted {
                self.connect(&wire, &mut state)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Event and GSI of one vector. While it is masked the event is not connected, so that the kernel keeps
/// what arrives and delivers it once on the next connect (irqfd assignment polls, virt/kvm/eventfd.c).
struct Wire {
    gsi: u32,
    event: EventFd,
    state: Mutex<WireState>,
}

#[derive(Default)]
struct WireState {
    is_wanted: bool,
    is_connected: bool,
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, WireState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One vector's way. Locks: the wire's state, then the table.
struct GsiRoute {
    wire: Arc<Wire>,
    shared: Arc<Shared>,
}

impl MsiRoute for GsiRoute {
    fn set(&self, message: Option<MsiMessage>) -> Result<(), RouteError> {
        let Wire { gsi, event, .. } = &*self.wire;
        let mut state = self.wire.state();
        state.is_wanted = message.is_some();
        if message.is_some() {
            self.shared.set(*gsi, message)?;
            self.shared.connect(&self.wire, &mut state)?;
        } else if state.is_connected {
            let cut = self.shared.vm.unregister_irqfd(event, *gsi);
            cut.map_err(|errno| GsiError::Connect(*gsi, errno.into()))?;
            state.is_connected = false;
        }
        Ok(())
    }

    fn event(&self) -> BorrowedFd<'_> {
        borrow(&self.wire.event)
    }

    fn pending(&self) -> bool {
        let state = self.wire.state();
        let mut fds = [PollFd::from_borrowed_fd(self.event(), PollFlags::IN)];
        !state.is_connected && poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn discard(&self) -> bool {
        let state = self.wire.state();
        !state.is_connected && self.wire.event.read().is_ok()
    }
}

impl Drop for GsiRoute {
    fn drop(&mut self) {
        if let Err(error) = self.set(None) {
            log::warn!("{error}");
        }
        let gsi = self.wire.gsi;
        let mut table = self.shared.lock();
        table.messages[gsi as usize] = None;
        table.free.insert(gsi);
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
    fn what_one_thread_holds_back_does_not_hold_up_another() {
        let message = |data| {
            Some(MsiMessage {
                address: 0xfee0_0000,
                data,
            })
        };
        let mut table = Table {
            messages: vec![None; 4],
            ..Table::default()
        };
        assert!(table.change(0, message(1)), "nobody holds anything");
        assert!(table.hold() && !table.change(1, message(2)) && table.is_stale());
        let other = |work: &mut (dyn FnMut() -> bool + Send)| {
            thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
        };
        assert!(!other(&mut || table.hold()));
        assert!(other(&mut || table.change(2, message(3))));
        assert!(
            other(&mut || table.change(1, message(2))),
            "the same again, while the kernel does not know it"
        );
        assert!(!table.change(3, None) && table.held_here().is_some());
    }

    #[test]
    fn a_message_that_kvm_refuses_is_left_out_of_the_table() {
        assert!(routed(0xfee0_1000));
        assert!(routed(0x0001_2300_fee0_1000), "an APIC id of 32 bits");
        assert!(!routed(0x0000_0001_fee0_1000));
        assert!(!routed(u64::MAX));
    }
}

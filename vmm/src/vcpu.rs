//! A thread for each vCPU: run, hand the exit to the address space, run again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use strait_devices::address_space::AddressSpace;
use strait_devices::irq::ioapic::Ioapic;
use strait_devices::{Effect, GuestAddress};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::kvm::vcpu::{Exit, Vcpu};
use crate::machine::{Event, Events};

/// What the vCPUs of a guest share.
#[derive(Clone)]
pub struct Surroundings {
    /// Where accesses go.
    pub space: Arc<AddressSpace>,
    /// Who hears of the end of level interrupts.
    pub ioapic: Arc<Ioapic>,
    /// Where resets, power-offs and failures are reported.
    pub events: Arc<Events>,
}

/// A running vCPU.
pub struct VcpuThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vcpu>,
}

impl VcpuThread {
    /// Starts `vcpu` on a thread of its own.
    ///
    /// # Errors
    /// When the host gives no more threads.
    pub fn start(vcpu: Vcpu, surroundings: Surroundings) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = thread::Builder::new()
            .name(format!("vcpu{}", vcpu.id()))
            .spawn(move || run(vcpu, &surroundings, &seen))?;
        Ok(Self { stop, thread })
    }

    /// Asks the vCPU to leave the guest, without waiting.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Waits until the vCPU has left the guest, and gives it back. `None` if its thread panicked.
    pub fn join(self) -> Option<Vcpu> {
        self.ask_to_stop();
        // A signal between the thread's look at `stop` and KVM_RUN has no effect, so it is repeated.
        while !self.thread.is_finished() {
            let _ = self.thread.kill(SIGRTMIN());
            thread::sleep(Duration::from_millis(1));
        }
        self.thread.join().ok()
    }
}

/// Makes the signal that takes vCPUs out of the guest harmless. Called once, before any vCPU runs.
///
/// # Errors
/// When the kernel refuses the handler.
pub fn install_kick() -> io::Result<()> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), ignore).map_err(io::Error::from)
}

fn run(mut vcpu: Vcpu, to: &Surroundings, stop: &AtomicBool) -> Vcpu {
    while !stop.load(Ordering::Acquire) {
        let effect = match vcpu.run() {
            Exit::PortRead { port, size, data } => {
                for unit in data.chunks_mut(size) {
                    to.space.read_port(port, unit);
                }
                continue;
            }
            Exit::PortWrite { port, size, data } => write_port(to, port, size, data),
            Exit::MemoryRead(address, data) => {
                to.space.read(GuestAddress(address), data);
                continue;
            }
            Exit::MemoryWrite(address, data) => to.space.write(GuestAddress(address), data),
            Exit::EndOfInterrupt(vector) => {
                to.ioapic.end_of_interrupt(vector);
                continue;
            }
            Exit::Interrupted => continue,
            Exit::Shutdown => return leave(vcpu, to, Event::TripleFault),
            Exit::Failed(why) => return leave(vcpu, to, Event::Failed(why)),
        };
        match effect {
            Effect::Reset => return leave(vcpu, to, Event::Reset),
            Effect::PowerOff => return leave(vcpu, to, Event::PowerOff),
            Effect::Panic => to.events.report(Event::GuestPanic),
            Effect::None | Effect::Remap(_) => {}
        }
    }
    vcpu
}

/// Writes the units of a string instruction one by one; the last effect that matters counts.
fn write_port(to: &Surroundings, port: u16, size: usize, data: &[u8]) -> Effect {
    let mut effect = Effect::None;
    for unit in data.chunks(size) {
        let next = to.space.write_port(port, unit);
        if !matches!(next, Effect::None) {
            effect = next;
        }
    }
    effect
}

fn leave(vcpu: Vcpu, to: &Surroundings, event: Event) -> Vcpu {
    to.events.report(event);
    vcpu
}

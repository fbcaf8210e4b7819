//! A thread for each vCPU: run, hand the exit to the address space, run again.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use strait_devices::address_space::AddressSpace;
use strait_devices::irq::ioapic::Ioapic;
use strait_devices::region::Unfinished;
use strait_devices::{Effect, Place};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::events::{Event, Events};
use crate::kvm::StopFlag;
use crate::kvm::vcpu::{Exit, Vcpu};

/// What the vCPUs of a guest share.
#[derive(Clone)]
pub struct Surroundings {
    /// The map through which trapped accesses find their device.
    pub space: Arc<AddressSpace>,
    /// Who hears of the end of level interrupts.
    pub ioapic: Arc<Ioapic>,
    /// Where resets, power-offs and failures are reported.
    pub events: Arc<Events>,
}

/// The thread of a vCPU, and how it is asked to stop.
pub struct VcpuThread {
    stop: Arc<StopFlag>,
    holds: Arc<AtomicBool>,
    thread: JoinHandle<Vcpu>,
    /// Hears when the thread has its name.
    begun: Receiver<()>,
}

impl VcpuThread {
    /// Starts `vcpu` on a thread of its own.
    ///
    /// # Errors
    /// When the host gives no more threads.
    pub fn start(vcpu: Vcpu, surroundings: Surroundings) -> io::Result<Self> {
        let stop = vcpu.stop_flag().clone();
        stop.set(false);
        let holds = Arc::new(AtomicBool::new(false));
        let held = holds.clone();
        let (begins, begun) = channel();
        let thread = thread::Builder::new()
            .name(format!("vcpu{}", vcpu.id()))
            .spawn(move || {
                let _nobody_waits = begins.send(());
                run(vcpu, &surroundings, &held)
            })?;
        Ok(Self {
            stop,
            holds,
            thread,
            begun,
        })
    }

    /// Waits until the thread has its name, by which it is found from outside.
    pub fn wait_for_name(&self) {
        let _is_over = self.begun.recv();
    }

    /// Asks the vCPU to leave the guest, without waiting. With `holds` it is to go on later, as if nothing had been:
    /// what it has begun is done to its end.
    pub fn ask_to_stop(&self, holds: bool) {
        self.holds.store(holds, Ordering::Release);
        self.stop.set(true);
        // A thread that is at its end already needs no signal.
        let _ = self.thread.kill(SIGRTMIN());
    }

    /// Waits until the vCPU has left the guest, as it was asked to or because something happened to the
    /// guest, and gives it back. `None` if its thread panicked.
    pub fn join(self) -> Option<Vcpu> {
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

/// Runs the vCPU until it is asked to stop or something happens to the guest; then it is between two
/// instructions, so that its registers may be set.
fn run(mut vcpu: Vcpu, to: &Surroundings, holds: &AtomicBool) -> Vcpu {
    let flag = vcpu.stop_flag().clone();
    let stop = Stop {
        flag: &flag,
        holds,
        begun: RefCell::default(),
    };
    let begun = vcpu.take_begun();
    let mut event = begun
        .into_iter()
        .find_map(|rest| go_on(Effect::More(Vec::new(), rest), to, &stop));
    while event.is_none() && !flag.is_set() {
        let mut earlier = None;
        let mut noted = |place, data: &[u8]| {
            earlier = earlier.take().or(write(place, data, to, &stop));
        };
        let later = handle(vcpu.run(&mut noted), to, &stop);
        event = earlier.or(later);
    }
    if let Some(event) = event {
        tell(event, vcpu.id(), to);
    }
    let mut noted = |place, data: &[u8]| _ = to.space.write_at(place, data);
    let is_done = match holds.load(Ordering::Acquire) {
        true => vcpu.finish_with(&mut noted, &mut |exit| {
            if let Some(event) = handle(exit, to, &stop) {
                to.events.report(event);
            }
        }),
        false => vcpu.finish(&mut noted),
    };
    if !is_done {
        log::error!(
            "The guest's CPU {} does not finish the instruction it is at; started again, it may go wrong",
            vcpu.id()
        );
    }
    vcpu.keep_begun(stop.begun.into_inner());
    vcpu
}

fn tell(event: Event, vcpu: u32, to: &Surroundings) {
    if event == Event::TripleFault {
        log::warn!(
            "The guest's CPU {vcpu} shut down: it met an exception with no handler for it (triple fault), so that \
             its kernel could not say more"
        );
    }
    to.events.report(event);
}

/// Whether a vCPU is to stop, and what becomes of work that it has begun.
struct Stop<'a> {
    flag: &'a StopFlag,
    holds: &'a AtomicBool,
    /// What is not done when it stops, and is to be gone on with before the guest's next instruction.
    begun: RefCell<Vec<Arc<dyn Unfinished>>>,
}

impl Stop<'_> {
    /// The vCPU stops: what an access asked for and is not done waits until it goes on, or is given up where it does not.
    fn leave(&self, rest: Arc<dyn Unfinished>) {
        if self.holds.load(Ordering::Acquire) {
            self.begun.borrow_mut().push(rest);
        }
    }
}

/// Does what an exit asks for; an event if the guest cannot go on as it is.
fn handle(exit: Exit<'_>, to: &Surroundings, stop: &Stop<'_>) -> Option<Event> {
    match exit {
        Exit::PortRead { port, size, data } => {
            data.chunks_mut(size)
                .for_each(|unit| to.space.read_port(port, unit));
            None
        }
        Exit::PortWrite { port, size, data } => {
            let mut units = data.chunks(size);
            units.find_map(|unit| write(Place::Port(port), unit, to, stop))
        }
        Exit::MemoryRead(address, data) => {
            to.space.read(address, data);
            None
        }
        Exit::MemoryWrite(address, data) => write(Place::Memory(address), data, to, stop),
        Exit::EndOfInterrupt(vector) => {
            to.ioapic.end_of_interrupt(vector);
            None
        }
        Exit::Interrupted => None,
        Exit::Shutdown => Some(Event::TripleFault),
        Exit::Debug(exit) => Some(Event::Debug(exit)),
        Exit::Failed(why) => Some(Event::Failed(why)),
    }
}

/// Writes, and goes on with what that asks for until all is done or the vCPU is to stop.
fn write(place: Place, data: &[u8], to: &Surroundings, stop: &Stop<'_>) -> Option<Event> {
    go_on(to.space.write_at(place, data), to, stop)
}

fn go_on(mut effect: Effect, to: &Surroundings, stop: &Stop<'_>) -> Option<Event> {
    loop {
        match effect {
            Effect::More(_, rest) if stop.flag.is_set() => {
                stop.leave(rest);
                return None;
            }
            Effect::More(_, rest) => effect = to.space.apply(rest.go_on()),
            effect => return event_of(effect, to),
        }
    }
}

/// What an effect that the address space could not apply means for the machine.
fn event_of(effect: Effect, to: &Surroundings) -> Option<Event> {
    match effect {
        Effect::None | Effect::Remap(_) | Effect::More(..) => None,
        Effect::Eject(port) => {
            to.events.report(Event::Ejected(port));
            None
        }
        Effect::Reset => Some(Event::Reset),
        Effect::PowerOff => Some(Event::PowerOff),
        Effect::Panic => Some(Event::GuestPanic),
    }
}

#[cfg(test)]
mod tests;

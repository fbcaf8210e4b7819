//! A debugger at a machine: who is listened to, whether the guest stands still for them, and what they hear of it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine as Machine;
use gdbstub::stub::{DisconnectReason, GdbStub};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strait_devices::warning::FirstOnly;
use vm_memory::GuestMemoryMmap;

use super::endpoint::{GdbAddress, Line, Listener};
use super::filter::{Filter, PACKET, Sorted};
use super::inferior::{Inferior, Reason, tid};
use super::monitor::Scene;

use crate::kvm::vcpu::{DebugExit, Vcpu};
use gdbstub::conn::Connection as _;

/// Bytes read at a time.
const CHUNK: usize = 4096;

/// How long gdb is listened to at a time: others wait for the machine meanwhile.
const TURN: Duration = Duration::from_millis(100);

/// What a second gdb is told, as an error with text (GDB manual, "Standard Replies").
const TAKEN: &[u8] = b"+$E.another debugger is attached to this guest#46";

/// Something that the machine is to do for a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing, for now.
    Nothing,
    /// The guest stands still.
    Stop,
    /// It goes on.
    Go,
    /// It ends.
    Quit,
}

/// The debugger of a machine, attached or awaited.
pub struct Debugger {
    listener: Listener,
    /// Came, and is served once the guest stands still.
    arrived: Option<Line>,
    session: Option<Session>,
    inferior: Inferior,
    /// The guest does not start before a debugger lets it.
    waits: bool,
    refused: FirstOnly,
}

/// One gdb, until it leaves.
struct Session {
    line: Line,
    filter: Filter,
    /// Taken out only while it works.
    machine: Option<Machine<'static, Inferior, Line>>,
    /// Came behind what stopped the reading.
    unread: Vec<u8>,
}

impl Debugger {
    /// Listens at `address`. With `waits` the guest stands still until a debugger lets it go.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(
        address: &GdbAddress,
        waits: bool,
        memory: GuestMemoryMmap,
        can_block: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::open(address)?,
            arrived: None,
            session: None,
            inferior: Inferior::new(memory, can_block),
            waits,
            refused: FirstOnly::default(),
        })
    }

    /// Readable when there is something to [`hear`](Self::hear).
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let line = self.session.as_ref().map(|session| session.line.as_fd());
        self.listener.fd().into_iter().chain(line).collect()
    }

    /// Whether the guest is to stand still: also one that was reset while gdb had it stopped.
    pub fn holds(&self) -> bool {
        let machine = self.session.as_ref().and_then(|session| session.machine.as_ref());
        let is_told = matches!(machine, Some(Machine::Idle(_)));
        self.waits || self.arrived.is_some() || is_told || self.inferior.stands_still()
    }

    /// The machine as it is now, before it is asked of: devices come and leave while the guest stands still, too.
    pub fn look_at(&mut self, scene: Box<dyn Scene>) {
        self.inferior.scene = Some(scene);
    }

    /// Listens to what was said and to who came. It waits for nobody.
    pub fn hear(&mut self) -> Wish {
        let wish = self.listen_to_session();
        // Who has gone may have said something before.
        let says_more = |session: &Session| !session.unread.is_empty() || is_readable(&session.line);
        if wish != Wish::Nothing || self.session.as_ref().is_some_and(says_more) {
            return wish;
        }
        if let Some(line) = self.listener.accept() {
            self.meet(line);
        }
        if self.arrived.is_some() && !self.inferior.stands_still() {
            return Wish::Stop;
        }
        if let Some(line) = self.arrived.take() {
            self.begin(line);
        }
        match self.is_left() {
            true => Wish::Go,
            false => Wish::Nothing,
        }
    }

    /// The guest stands still, and nobody is there or awaited who could let it go: gdb was gone when it was told something.
    fn is_left(&self) -> bool {
        self.session.is_none() && !self.waits && self.inferior.stands_still()
    }

    /// The guest stands still, for a wish or an exit; `others` are what further vCPUs met in the same moment. True if it
    /// stays so: an exit may mean nothing to the debugger.
    pub fn stopped(&mut self, vcpus: Vec<Vcpu>, exit: Option<DebugExit>, others: Vec<DebugExit>) -> bool {
        self.inferior.keep(&others);
        self.inferior.vcpus = vcpus;
        self.inferior.goes_on = false;
        if let Some(line) = self.arrived.take() {
            self.begin(line);
            return !self.is_left();
        }
        let reason = match exit {
            Some(exit) => self.inferior.reason(exit).or_else(|| self.inferior.left_over()),
            None => Some(self.interrupted()),
        };
        match (reason, &mut self.session) {
            (Some(reason), Some(_)) => {
                self.tell(reason);
                !self.is_left()
            }
            (None, Some(_)) => false,
            // gdb has left meanwhile, or is awaited.
            (_, None) => self.waits,
        }
    }

    /// The vCPUs as they go on; those that stand still are told apart by [`runs`](Self::runs).
    pub fn go_on(&mut self) -> Vec<Vcpu> {
        self.waits = false;
        if self.session.is_none() {
            self.inferior.disarm();
        } else {
            self.inferior.arm();
        }
        std::mem::take(&mut self.inferior.vcpus)
    }

    /// Whether a vCPU runs when the guest goes on.
    pub fn runs(&self, vcpu: u32) -> bool {
        self.inferior.runs(vcpu)
    }

    /// The vCPUs, of a guest that does not go on.
    pub fn give_back(&mut self) -> Vec<Vcpu> {
        std::mem::take(&mut self.inferior.vcpus)
    }

    /// Whether gdb has said more than was listened to.
    pub fn has_unread(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.unread.is_empty())
    }

    /// Before the kernel is loaded again.
    pub fn lift(&mut self) {
        self.inferior.lift();
        // What a thread was about to step over is gone.
        self.inferior.clear_actions();
    }

    /// Behind that: breakpoints stand where they stood.
    pub fn put_back(&mut self) {
        self.inferior.put_back();
    }

    /// The guest has ended with this exit code.
    pub fn ended(&mut self, code: u8) {
        if let Err(error) = self.report(Reason::Exited(code)) {
            log::info!("The debugger does not hear of the guest's end ({error})");
        }
    }

    fn meet(&mut self, mut line: Line) {
        // The former one may have gone a moment ago.
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.line.has_hung_up())
        {
            self.session = None;
            log::info!("The debugger has gone, and another one comes");
        }
        if self.session.is_none() && self.arrived.is_none() {
            self.arrived = Some(line);
            return;
        }
        let _ = line.write_all(TAKEN).and_then(|()| line.send());
        if self.refused.pass() {
            log::warn!("A second debugger came and was refused; further ones are not reported");
        }
    }

    fn begin(&mut self, line: Line) {
        // What a former one left.
        self.inferior.disarm();
        let begun = line
            .share()
            .map_err(|error| error.to_string())
            .and_then(|writer| {
                let stub = GdbStub::builder(writer)
                    .packet_buffer_size(PACKET)
                    .build()
                    .map_err(|error| error.to_string())?;
                stub.run_state_machine(&mut self.inferior)
                    .map_err(|error| error.to_string())
            });
        match begun {
            Ok(machine) => {
                log::info!("A debugger is attached; the guest stands still");
                self.session = Some(Session {
                    line,
                    filter: Filter::default(),
                    machine: Some(machine),
                    unread: Vec::new(),
                });
            }
            Err(error) => log::error!("A debugger cannot be served: {error}"),
        }
    }

    fn listen_to_session(&mut self) -> Wish {
        let Some(session) = &mut self.session else {
            return Wish::Nothing;
        };
        let mut bytes = std::mem::take(&mut session.unread);
        if bytes.is_empty() {
            if !is_readable(&session.line) {
                return Wish::Nothing;
            }
            let mut buffer = [0; CHUNK];
            bytes = session.line.read(&mut buffer).to_vec();
            if bytes.is_empty() {
                return self.leave("has gone");
            }
        }
        let begin = Instant::now();
        for (at, byte) in bytes.iter().enumerate() {
            let wish = self.feed(*byte);
            if wish != Wish::Nothing || begin.elapsed() > TURN {
                if let Some(session) = &mut self.session {
                    session.unread = bytes[at + 1..].to_vec();
                }
                return wish;
            }
        }
        Wish::Nothing
    }

    /// One byte of gdb's.
    fn feed(&mut self, byte: u8) -> Wish {
        let Some(session) = &mut self.session else {
            return Wish::Nothing;
        };
        let bytes = match session.filter.feed(byte, &mut self.inferior.modes) {
            Sorted::Wait => return Wish::Nothing,
            Sorted::Answer(answer) => {
                let answered = session.line.write_all(&answer).and_then(|()| session.line.send());
                return match answered {
                    Ok(()) => Wish::Nothing,
                    Err(error) => self.leave(&format!("does not listen ({error})")),
                };
            }
            Sorted::Pass(bytes) => bytes,
            Sorted::TooLong => return self.leave("sends a packet without an end"),
        };
        for byte in bytes {
            let wish = self.pump(byte);
            if wish != Wish::Nothing {
                return wish;
            }
        }
        Wish::Nothing
    }

    fn pump(&mut self, byte: u8) -> Wish {
        let Some(machine) = self.session.as_mut().and_then(|session| session.machine.take()) else {
            return Wish::Nothing;
        };
        let next = match machine {
            Machine::Idle(idle) => idle.incoming_data(&mut self.inferior, byte),
            Machine::Running(running) => running.incoming_data(&mut self.inferior, byte),
            // It is answered first, once the guest stands still.
            other => Ok(other),
        };
        match next {
            Ok(machine) => self.follow(machine),
            Err(error) => self.leave(&format!("says what cannot be understood ({error})")),
        }
    }

    /// What the stub's new state means for the machine.
    fn follow(&mut self, machine: Machine<'static, Inferior, Line>) -> Wish {
        if let Machine::Disconnected(mut disconnected) = machine {
            let is_kill = matches!(disconnected.get_reason(), DisconnectReason::Kill);
            let line = disconnected.borrow_conn();
            if is_kill {
                // gdb waits for it behind `vKill`, and the stub does not say it.
                let _ = line.write_all(b"$OK#9a");
            }
            let _ = line.send();
            if is_kill {
                return Wish::Quit;
            }
            self.waits = false;
            return self.leave("has detached");
        }
        let is_interrupt = matches!(machine, Machine::CtrlCInterrupt(_));
        let stands_still = self.inferior.stands_still();
        let kept = self.keep(machine);
        if self.inferior.is_killed {
            return Wish::Quit;
        }
        if let Err(error) = kept {
            // What it has asked for holds all the same.
            self.waits &= !self.inferior.goes_on;
            return self.leave(&format!("does not listen ({error})"));
        }
        if is_interrupt {
            return match stands_still {
                // It met a stop on its way, which gdb hears of.
                true => self.forget_interrupt(),
                false => Wish::Stop,
            };
        }
        if !(stands_still && self.inferior.goes_on) {
            return Wish::Nothing;
        }
        match self.inferior.left_over() {
            Some(reason) => {
                self.inferior.goes_on = false;
                self.tell(reason);
                Wish::Nothing
            }
            None => Wish::Go,
        }
    }

    fn forget_interrupt(&mut self) -> Wish {
        let Some(machine) = self.session.as_mut().and_then(|session| session.machine.take()) else {
            return Wish::Nothing;
        };
        let next = match machine {
            Machine::CtrlCInterrupt(interrupt) => {
                interrupt.interrupt_handled(&mut self.inferior, None::<Reason>)
            }
            other => Ok(other),
        };
        match next {
            Ok(machine) => self.follow(machine),
            Err(error) => self.leave(&format!("says what cannot be understood ({error})")),
        }
    }

    /// Says why the guest stands still. It goes on where gdb does not hear of it.
    fn tell(&mut self, reason: Reason) {
        if let Err(error) = self.report(reason) {
            self.leave(&format!("does not listen ({error})"));
        }
    }

    fn report(&mut self, reason: Reason) -> Result<(), String> {
        let Some(machine) = self.session.as_mut().and_then(|session| session.machine.take()) else {
            return Ok(());
        };
        let told = match machine {
            Machine::Running(running) => running.report_stop(&mut self.inferior, reason),
            Machine::CtrlCInterrupt(interrupt) => {
                interrupt.interrupt_handled(&mut self.inferior, Some(reason))
            }
            other => Ok(other),
        };
        let machine = told.map_err(|error| error.to_string())?;
        self.keep(machine).map_err(|error| error.to_string())
    }

    /// The stub's next state, once what it said is on its way.
    fn keep(&mut self, mut machine: Machine<'static, Inferior, Line>) -> io::Result<()> {
        let line = match &mut machine {
            Machine::Idle(state) => state.borrow_conn(),
            Machine::Running(state) => state.borrow_conn(),
            Machine::CtrlCInterrupt(state) => state.borrow_conn(),
            Machine::Disconnected(state) => state.borrow_conn(),
        };
        let sent = line.send();
        if let Some(session) = &mut self.session {
            session.machine = Some(machine);
        }
        sent
    }

    fn interrupted(&self) -> Reason {
        let first = self.inferior.vcpus.first().map_or(0, Vcpu::id);
        Reason::SignalWithThread {
            tid: tid(first),
            signal: Signal::SIGINT,
        }
    }

    /// The guest goes on without a debugger, for which it must stand still once; one that was never let go waits for the
    /// next.
    fn leave(&mut self, why: &str) -> Wish {
        self.session = None;
        if self.waits && !self.listener.is_open() {
            log::warn!(
                "The debugger {why} before it let the guest go, and no other one can come: the guest ends"
            );
            return Wish::Quit;
        }
        if self.waits {
            log::info!("The debugger {why}; the guest waits for another one");
            return Wish::Nothing;
        }
        log::info!("The debugger {why}; the guest goes on");
        match self.inferior.stands_still() {
            true => Wish::Go,
            false => Wish::Stop,
        }
    }
}

fn is_readable(line: &Line) -> bool {
    let mut fds = [PollFd::new(line, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

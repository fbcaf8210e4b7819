//! The one thread beside the vCPUs: what is typed, signals, interrupt wires, what the vCPUs report and what the
//! host asks for.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strait_devices::legacy::Serial;
use strait_vfio::Intx;

use crate::events::{Event, Events};
use crate::output::Outputs;
use crate::signals::Signals;
use crate::terminal::{Escape, Key};
use crate::user::User;

/// Bytes taken from standard input at a time.
const CHUNK: usize = 256;
/// Bytes typed on a terminal that wait for a guest which does not read; more are dropped.
const TYPE_AHEAD: usize = 4096;

/// Whom to listen to, beside the user.
pub struct Sources<'a> {
    /// What vCPUs report, with the descriptor that wakes the loop for it.
    pub events: &'a Events,
    /// Takes what is typed.
    pub console: &'a Serial,
    /// Wires to be served.
    pub wires: Vec<&'a Intx>,
    /// Readable when the host has something to tell of a device.
    pub hosts: Vec<BorrowedFd<'a>>,
    /// Readable when a debugger has something to say; none where none was asked for.
    pub debugger: Vec<BorrowedFd<'a>>,
    /// The control socket and its clients, with what each waits for; none where there is no socket.
    pub control: Vec<(BorrowedFd<'a>, PollFlags)>,
    /// When to stop waiting.
    pub until: Option<Instant>,
    /// The answer to SIGUSR1.
    pub report: &'a dyn Fn() -> String,
}

/// Why the waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake {
    /// A vCPU reports something.
    Event(Event),
    /// A signal asks for the end. It is not taken: it comes again and again.
    Signal,
    /// The user asks for the end.
    Quit,
    /// The host has something to tell.
    Host,
    /// A debugger has something to say.
    Debugger,
    /// Somebody at the control socket has something to say, or reads.
    Control,
    /// The deadline of who waits for a guest has come.
    Deadline,
}

/// What `poll` found ready, in the order in which it is served.
#[derive(Default)]
struct Ready {
    signalled: bool,
    asked: bool,
    typed: bool,
    host: bool,
    debugger: bool,
    control: bool,
}

/// Waits for whatever happens next.
pub struct EventLoop {
    signals: Arc<Signals>,
    outputs: Arc<Outputs>,
    stdin: Option<OwnedFd>,
    is_terminal: bool,
    escape: Escape,
    /// Typed bytes that the guest's serial port has no room for yet.
    typed: Vec<u8>,
}

impl EventLoop {
    /// Listens to `user` and to standard input.
    pub fn new(user: &User) -> Self {
        let stdin = io::stdin().as_fd().try_clone_to_owned().ok();
        let is_terminal = io::stdin().is_terminal();
        Self {
            signals: user.signals.clone(),
            outputs: user.outputs.clone(),
            stdin,
            is_terminal,
            escape: Escape::default(),
            typed: Vec::new(),
        }
    }

    /// Takes one of the signals that ask for the end, of which the next may mean more.
    pub fn take_signal(&self) {
        self.signals.take_end();
    }

    /// Serves the console, the outputs and the wires of passed devices, and answers questions, until there is
    /// something for the machine to do.
    ///
    /// # Errors
    /// When the host's poll fails.
    pub fn next(&mut self, sources: &Sources<'_>) -> io::Result<Wake> {
        loop {
            self.pass_on(sources.console);
            let ready = self.wait(sources)?;
            // Before a reset that comes with it, which would start the guest once more.
            if ready.signalled {
                return Ok(Wake::Signal);
            }
            if let Some(event) = sources.events.take() {
                return Ok(Wake::Event(event));
            }
            if ready.typed && self.read_typed() {
                return Ok(Wake::Quit);
            }
            if ready.asked {
                self.answer(sources);
            }
            if ready.host {
                return Ok(Wake::Host);
            }
            if ready.debugger {
                return Ok(Wake::Debugger);
            }
            if ready.control {
                return Ok(Wake::Control);
            }
            if sources.until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Wake::Deadline);
            }
        }
    }

    /// Polls, serves wires and outputs, and says what else is ready. A pipe is left alone while the guest has no
    /// room; the serial port wakes us through `events` when it has. A terminal is read all the same, for the
    /// escape key.
    fn wait(&self, sources: &Sources<'_>) -> io::Result<Ready> {
        let stdin = self
            .stdin
            .as_ref()
            .filter(|_| self.is_terminal || self.typed.is_empty());
        let (end, questions) = (self.signals.end(), self.signals.questions());
        let mut fds = vec![
            PollFd::new(sources.events, PollFlags::IN),
            PollFd::new(&end, PollFlags::IN),
            PollFd::new(&questions, PollFlags::IN),
        ];
        fds.extend(sources.wires.iter().map(|wire| PollFd::new(*wire, PollFlags::IN)));
        fds.extend(sources.hosts.iter().map(|host| PollFd::new(host, PollFlags::IN)));
        fds.extend(sources.debugger.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let control = sources.control.iter();
        fds.extend(control.map(|(fd, flags)| PollFd::new(fd, *flags)));
        let outputs = self.outputs.poll_fds();
        let output_count = outputs.len();
        fds.extend(outputs);
        fds.extend(stdin.map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, sources.until.map(time_left).as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            done => done?,
        };
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let (first, rest) = fds.split_at(3);
        let (wires, rest) = rest.split_at(sources.wires.len());
        let (hosts, rest) = rest.split_at(sources.hosts.len());
        let (debugger, rest) = rest.split_at(sources.debugger.len());
        let (control, rest) = rest.split_at(sources.control.len());
        let (outputs, stdin) = rest.split_at(output_count);
        for (wire, _) in sources.wires.iter().zip(wires).filter(|(_, fd)| is_ready(fd)) {
            wire.serve();
        }
        if is_ready(&first[0]) {
            sources.events.clear();
        }
        if outputs.iter().any(is_ready) {
            self.outputs.serve();
        }
        Ok(Ready {
            signalled: is_ready(&first[1]),
            asked: is_ready(&first[2]),
            typed: stdin.iter().any(is_ready),
            host: hosts.iter().any(is_ready),
            debugger: debugger.iter().any(is_ready),
            control: control.iter().any(is_ready),
        })
    }

    /// Several questions at once get one answer, on standard error.
    fn answer(&self, sources: &Sources<'_>) {
        self.signals.take_questions();
        self.outputs.messages.put((sources.report)().as_bytes());
    }

    /// Reads what was typed; true if it says to quit. At its end, or when it cannot be read, standard
    /// input is forgotten and the guest goes on.
    fn read_typed(&mut self) -> bool {
        let mut bytes = [0; CHUNK];
        let Some(stdin) = &self.stdin else { return false };
        match rustix::io::read(stdin, &mut bytes) {
            Ok(0) => self.stdin = None,
            Ok(len) => {
                let keys = bytes[..len].iter().filter_map(|byte| self.escape.feed(*byte));
                for key in keys {
                    match key {
                        Key::Byte(byte) if self.typed.len() < TYPE_AHEAD => self.typed.push(byte),
                        Key::Byte(_) => {}
                        Key::Quit => return true,
                    }
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.stdin = None,
        }
        false
    }

    fn pass_on(&mut self, console: &Serial) {
        let taken = console.send(&self.typed);
        self.typed.drain(..taken);
    }
}

fn time_left(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: left.subsec_nanos().into(),
    }
}

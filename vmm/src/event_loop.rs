//! The one thread beside the vCPUs: what is typed, signals, interrupt wires, and what the vCPUs report.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use strait_devices::legacy::Serial;
use strait_vfio::Intx;

use crate::machine::{Event, Events};
use crate::terminal::{Escape, Key};

/// Bytes taken from standard input at a time.
const CHUNK: usize = 256;
/// Bytes typed on a terminal that wait for a guest which does not read; more are dropped.
const TYPE_AHEAD: usize = 4096;

/// Waits for whatever happens next.
pub struct EventLoop {
    signals: UnixStream,
    stdin: Option<OwnedFd>,
    is_terminal: bool,
    escape: Escape,
    /// Typed bytes that the guest's serial port has no room for yet.
    typed: Vec<u8>,
}

impl EventLoop {
    /// Takes over SIGTERM, SIGINT and SIGHUP, and standard input.
    ///
    /// # Errors
    /// When a signal cannot be taken over.
    pub fn new() -> io::Result<Self> {
        let (signals, raise) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, raise.try_clone()?)?;
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned().ok();
        let is_terminal = io::stdin().is_terminal();
        Ok(Self {
            signals,
            stdin,
            is_terminal,
            escape: Escape::default(),
            typed: Vec::new(),
        })
    }

    /// Serves the console and the wires of passed devices until a vCPU reports something, a signal arrives or the user quits.
    ///
    /// # Errors
    /// When the host's poll fails.
    pub fn next_event(
        &mut self,
        events: &Events,
        console: &Serial,
        wires: &[Arc<Intx>],
    ) -> io::Result<Event> {
        loop {
            self.pass_on(console);
            let [woken, signalled, typed] = self.wait(events, wires)?;
            if woken && let Some(event) = events.take() {
                return Ok(event);
            }
            if signalled {
                return Ok(Event::Quit);
            }
            if typed && self.read_typed() {
                return Ok(Event::Quit);
            }
        }
    }

    /// Polls, serves wires, and says which of the three other sources is ready. A pipe is left alone while
    /// the guest has no room; the serial port wakes us through `events` when it has. A terminal is read all
    /// the same, for the escape key.
    fn wait(&self, events: &Events, wires: &[Arc<Intx>]) -> io::Result<[bool; 3]> {
        let stdin = self
            .stdin
            .as_ref()
            .filter(|_| self.is_terminal || self.typed.is_empty());
        let mut fds = vec![
            PollFd::new(events, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        fds.extend(wires.iter().map(|wire| PollFd::new(&**wire, PollFlags::IN)));
        fds.extend(stdin.map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok([false; 3]),
            done => done?,
        };
        let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        let (sources, rest) = fds.split_at(2);
        let (wire_fds, stdin) = rest.split_at(wires.len());
        for (wire, _) in wires.iter().zip(wire_fds).filter(|(_, fd)| ready(Some(*fd))) {
            wire.serve();
        }
        Ok([
            ready(sources.first()),
            ready(sources.last()),
            ready(stdin.first()),
        ])
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

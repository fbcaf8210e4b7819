//! A client of QMP: one connection to one guest, with a limit of time to everything (QEMU, docs/interop/qmp-spec.rst).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};

use super::trouble::Trouble;

/// Bytes of the longest answer: all numbers of a guest with many CPUs have a tenth of it.
const MAX_LINE: usize = 16 << 20;

/// Events that are kept for whoever asks for them; there are more only where nobody does.
const MAX_EVENTS: usize = 256;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// The pause before another try where too many others wait to be heard.
const PAUSE: Duration = Duration::from_millis(20);

/// Something that happened to the guest.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
}

/// What a line is.
enum Said {
    Greeting(Value),
    Event(Event),
    Answer(Value),
}

/// A guest that was greeted and takes commands.
pub(super) struct Connection {
    /// What messages call it.
    pub(super) guest: String,
    /// What it said of itself in its greeting.
    pub(super) version: Value,
    stream: UnixStream,
    /// How long it may take to answer.
    pub(super) patience: Duration,
    input: Vec<u8>,
    /// Bytes of it in which no line ends.
    searched: usize,
    events: VecDeque<Event>,
    /// Commands that were sent.
    sent: u64,
}

impl Connection {
    /// Connects to the guest at `socket`, which messages call `guest`.
    ///
    /// # Errors
    /// When nobody is there, it is not ours, or it does not answer in time.
    pub(super) fn open(socket: &Path, guest: &str, patience: Duration) -> Result<Self, Trouble> {
        let until = Instant::now() + patience;
        let stream = loop {
            match try_to_connect(socket) {
                Ok(stream) => break stream,
                // As many others wait as the kernel lets wait (unix(7)).
                Err(Errno::AGAIN) if Instant::now() < until => sleep(PAUSE),
                Err(Errno::AGAIN) => return Err(Trouble::Silent(guest.to_owned(), patience)),
                Err(errno @ (Errno::CONNREFUSED | Errno::NOENT | Errno::NOTSOCK | Errno::NOTDIR)) => {
                    return Err(Trouble::NoSocket(socket.to_owned(), errno.into()));
                }
                Err(Errno::ACCESS | Errno::PERM) => return Err(Trouble::NotAllowed(guest.to_owned())),
                Err(errno) => return Err(Trouble::Connect(guest.to_owned(), errno.into())),
            }
        };
        Self::over(stream, guest, patience)
    }

    /// The same over a stream that is connected already.
    pub(super) fn over(stream: UnixStream, guest: &str, patience: Duration) -> Result<Self, Trouble> {
        let mut connection = Self {
            guest: guest.to_owned(),
            version: Value::Null,
            stream,
            patience,
            input: Vec::new(),
            searched: 0,
            events: VecDeque::new(),
            sent: 0,
        };
        let until = Instant::now() + patience;
        connection.version = match connection.next(until)? {
            Some(Said::Greeting(version)) => version,
            Some(_) => return Err(Trouble::Foreign(connection.guest)),
            None => return Err(connection.silent()),
        };
        connection.execute("qmp_capabilities", Value::Null)?;
        Ok(connection)
    }

    /// Has the guest do something, and returns what it returns.
    ///
    /// # Errors
    /// When it refuses, ends, or does not answer in time.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Trouble> {
        self.sent += 1;
        let id = json!(self.sent);
        let mut call = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            call["arguments"] = arguments;
        }
        let until = Instant::now() + self.patience;
        self.send(&format!("{call}\n"))?;
        loop {
            match self.next(until)? {
                // An error of QEMU's reader comes without an id.
                Some(Said::Answer(mut answer)) if answer.get("id").is_none_or(|of| *of == id) => {
                    return match answer.get("error") {
                        Some(error) => Err(self.refusal(error)),
                        None => Ok(answer["return"].take()),
                    };
                }
                Some(Said::Event(event)) => self.keep(event),
                Some(_) => {}
                None => return Err(self.silent()),
            }
        }
    }

    /// The next thing that happened to the guest, if it comes before `until`.
    ///
    /// # Errors
    /// [`Trouble::Gone`] when the guest is over.
    pub(super) fn event(&mut self, until: Instant) -> Result<Option<Event>, Trouble> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        loop {
            match self.next(until)? {
                Some(Said::Event(event)) => return Ok(Some(event)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn send(&mut self, line: &str) -> Result<(), Trouble> {
        let sent = self
            .stream
            .set_write_timeout(Some(self.patience))
            .and_then(|()| self.stream.write_all(line.as_bytes()));
        sent.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.silent(),
            _ => self.lost(error),
        })
    }

    /// What comes next, if it comes before `until`.
    fn next(&mut self, until: Instant) -> Result<Option<Said>, Trouble> {
        loop {
            let rest = &self.input[self.searched..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=self.searched + end).collect();
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let said = read(&line).ok_or_else(|| Trouble::Foreign(self.guest.clone()))?;
                return Ok(Some(said));
            }
            self.searched = self.input.len();
            if self.searched > MAX_LINE {
                return Err(Trouble::Foreign(self.guest.clone()));
            }
            if !self.fill(until)? {
                return Ok(None);
            }
        }
    }

    /// Reads what has come; false if nothing does before `until`.
    fn fill(&mut self, until: Instant) -> Result<bool, Trouble> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut bytes = vec![0; CHUNK];
        let read = self
            .stream
            .set_read_timeout(Some(left))
            .and_then(|()| self.stream.read(&mut bytes));
        match read {
            Ok(0) => Err(Trouble::Gone(self.guest.clone())),
            Ok(len) => {
                self.input.extend_from_slice(&bytes[..len]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(self.lost(error)),
        }
    }

    fn silent(&self) -> Trouble {
        Trouble::Silent(self.guest.clone(), self.patience)
    }

    fn lost(&self, error: io::Error) -> Trouble {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Trouble::Gone(self.guest.clone()),
            _ => Trouble::Connect(self.guest.clone(), error),
        }
    }

    fn refusal(&self, error: &Value) -> Trouble {
        let why = error["desc"]
            .as_str()
            .unwrap_or("it refuses, and does not say why");
        Trouble::Refused {
            guest: self.guest.clone(),
            why: why.replace(char::is_control, " "),
        }
    }
}

/// A connection, without waiting for one: a guest whose process is stopped accepts none.
fn try_to_connect(socket: &Path) -> rustix::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let end = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&end, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(end);
    rustix::io::ioctl_fionbio(&stream, false)?;
    Ok(stream)
}

fn read(line: &[u8]) -> Option<Said> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(line) else {
        return None;
    };
    if let Some(mut greeting) = members.remove("QMP") {
        return Some(Said::Greeting(greeting["version"].take()));
    }
    if members.contains_key("return") || members.contains_key("error") {
        return Some(Said::Answer(members.into()));
    }
    match members.remove("event") {
        Some(Value::String(name)) => Some(Said::Event(Event {
            name,
            data: members.remove("data").unwrap_or_default(),
        })),
        _ => None,
    }
}

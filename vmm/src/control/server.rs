//! Who is listened to, what they are told, and what they want of the machine.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::event::PollFlags;
use serde_json::{Value, json};

use super::client::{Client, Line};
use super::command::{self, Attachment, Command};
use super::listener::Listener;
use super::wire::{self, MAX_LINE, Refused};

/// Most clients at a time; who comes later is hung up on.
const MAX_CLIENTS: usize = 16;

/// A client whose command takes long: it is answered when that is done, and hears nothing else answered before.
pub type Ticket = u64;

/// Something that the machine is to do for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The guest stands still.
    Pause,
    /// It goes on.
    Resume,
    /// It is reset.
    Reset,
    /// It ends.
    Quit,
    /// Its power button is pressed.
    Powerdown,
    /// A device comes into a free slot; the client is answered when it is there.
    Attach(Ticket, Attachment),
    /// The device with this id leaves, at once where it is `true`.
    Detach(Ticket, String, bool),
}

/// What a machine tells of itself.
pub trait Facts {
    /// QEMU's name of its state: running, paused or debug.
    fn status(&self) -> &'static str;
    /// The answer to `query-pci`.
    fn pci(&self) -> Value;
    /// The answer to `query-cpus-fast`.
    fn cpus(&self) -> Value;
    /// The answer to `x-query-strait`.
    fn strait(&self) -> Value;
}

/// The control sockets of a machine.
pub struct Control {
    listeners: Vec<Listener>,
    clients: Vec<Client>,
    /// How many have come.
    came: Ticket,
    /// The client whose wish is being done, and the id of its command. Nothing more is heard until it is.
    owed: Option<(Ticket, Option<Value>)>,
    /// What clients know of the guest.
    is_running: bool,
}

impl Control {
    /// Listens at these sockets.
    pub fn new(listeners: Vec<Listener>) -> Self {
        Self {
            listeners,
            clients: Vec::new(),
            came: 0,
            owed: None,
            is_running: true,
        }
    }

    /// A socket at which it can be found, the one of the guest's name before others.
    pub fn socket(&self) -> Option<&Path> {
        self.listeners.iter().find_map(Listener::path)
    }

    /// What to poll, so that there is something to [`hear`](Self::hear).
    pub fn fds(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        // One that waits and hung up would wake the loop for nothing.
        let heard = self
            .clients
            .iter()
            .filter(|client| client.owed.is_none() || client.is_behind());
        let clients = heard.map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.is_open());
            flags.set(PollFlags::OUT, client.is_behind());
            (client.as_fd(), flags)
        });
        let listeners = self.listeners.iter();
        clients
            .chain(listeners.map(|listener| (listener.as_fd(), PollFlags::IN)))
            .collect()
    }

    /// Whether commands have come that were not listened to.
    pub fn has_unread(&self) -> bool {
        self.clients.iter().any(Client::has_line)
    }

    /// Listens to who came and answers what was asked, up to the first wish. It waits for nobody.
    pub fn hear(&mut self, facts: &dyn Facts) -> Option<Wish> {
        self.clients.iter_mut().for_each(Client::flush);
        self.clients.retain(|client| !client.is_gone());
        self.meet();
        for number in 0..self.clients.len() {
            self.clients[number].fill();
            // One command of each, so that none is kept waiting by another that says much.
            let Some(line) = self.clients[number].take_line() else {
                continue;
            };
            let wish = self.obey(number, line, facts);
            if wish.is_some() {
                return wish;
            }
        }
        None
    }

    /// Tells clients whether the guest runs, where that is new, and the one whose wish it was that it is done.
    pub fn settle(&mut self, is_running: bool) {
        if is_running != self.is_running {
            self.is_running = is_running;
            self.tell_all(if is_running { "RESUME" } else { "STOP" }, None);
        }
        self.answer_wish();
    }

    fn answer_wish(&mut self) {
        let Some((ticket, id)) = self.owed.take() else {
            return;
        };
        let mut clients = self.clients.iter_mut();
        if let Some(client) = clients.find(|client| client.number == ticket) {
            client.tell(&wire::answer(Ok(json!({})), id));
        }
    }

    /// What the client's command that takes long has come to.
    pub fn answer(&mut self, ticket: Ticket, answer: Result<Value, Refused>) {
        let mut clients = self.clients.iter_mut();
        if let Some(client) = clients.find(|client| client.number == ticket)
            && let Some(id) = client.owed.take()
        {
            client.tell(&wire::answer(answer, id));
        }
    }

    /// What becomes of the device with this id, in QEMU's words.
    pub fn tell_of_device(&mut self, event: &str, id: &str) {
        let path = format!("/machine/peripheral/{id}");
        self.tell_all(event, Some(json!({"device": id, "path": path})));
    }

    /// The guest starts again; whether it wanted that itself.
    pub fn reset(&mut self, is_guests: bool) {
        let reason = match is_guests {
            true => "guest-reset",
            false => "host-qmp-system-reset",
        };
        self.tell_all("RESET", Some(json!({"guest": is_guests, "reason": reason})));
    }

    /// The guest's power button was pressed.
    pub fn pressed(&mut self) {
        self.tell_all("POWERDOWN", None);
    }

    /// The guest's kernel says that it panicked, by which it is ended.
    pub fn panicked(&mut self) {
        self.tell_all("GUEST_PANICKED", Some(json!({"action": "poweroff"})));
    }

    /// The guest is over, for a reason by QEMU's name.
    pub fn ended(&mut self, reason: &str) {
        self.answer_wish();
        let is_guests = reason.starts_with("guest-");
        self.tell_all("SHUTDOWN", Some(json!({"guest": is_guests, "reason": reason})));
    }

    fn meet(&mut self) {
        let came: Vec<Client> = self.listeners.iter().filter_map(Listener::accept).collect();
        came.into_iter().for_each(|client| self.meet_one(client));
    }

    pub(super) fn meet_one(&mut self, mut client: Client) {
        self.came += 1;
        client.number = self.came;
        if self.clients.len() < MAX_CLIENTS {
            client.tell(&wire::greeting());
            self.clients.push(client);
        }
    }

    /// Bytes of its clients that are kept.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn kept(&self) -> usize {
        self.clients.iter().map(Client::kept).sum()
    }

    fn obey(&mut self, number: usize, line: Line, facts: &dyn Facts) -> Option<Wish> {
        let client = &mut self.clients[number];
        let (result, id) = match line {
            Line::TooLong => {
                let why = format!("a command of more than {MAX_LINE} bytes came");
                (Err(Refused::generic(why)), None)
            }
            Line::Whole(line) => match wire::read(&line) {
                Ok(call) => (command::find(&call, client.is_ready), call.id),
                Err((refusal, id)) => (Err(refusal), id),
            },
        };
        let result = match result {
            Ok(command) => match wish(&command, client.number) {
                Some(wish @ (Wish::Attach(..) | Wish::Detach(..))) => {
                    client.owed = Some(id);
                    return Some(wish);
                }
                Some(wish) => {
                    self.owed = Some((client.number, id));
                    return Some(wish);
                }
                None => {
                    client.is_ready = true;
                    Ok(tell(&command, facts))
                }
            },
            Err(refusal) => Err(refusal),
        };
        client.tell(&wire::answer(result, id));
        None
    }

    fn tell_all(&mut self, name: &str, data: Option<Value>) {
        let event = wire::event(name, data);
        let ready = self.clients.iter_mut().filter(|client| client.is_ready);
        ready.for_each(|client| client.tell(&event));
    }
}

fn wish(command: &Command, ticket: Ticket) -> Option<Wish> {
    match command {
        Command::Attach(attachment) => Some(Wish::Attach(ticket, attachment.clone())),
        Command::Detach(id, force) => Some(Wish::Detach(ticket, id.clone(), *force)),
        Command::Stop => Some(Wish::Pause),
        Command::Cont => Some(Wish::Resume),
        Command::Reset => Some(Wish::Reset),
        Command::Quit => Some(Wish::Quit),
        Command::Powerdown => Some(Wish::Powerdown),
        _ => None,
    }
}

fn tell(command: &Command, facts: &dyn Facts) -> Value {
    match command {
        Command::Version => wire::greeting()["QMP"]["version"].take(),
        Command::Commands => command::names(),
        Command::Status => {
            let status = facts.status();
            json!({"status": status, "running": status == "running"})
        }
        Command::Pci => facts.pci(),
        Command::Cpus => facts.cpus(),
        Command::Strait => facts.strait(),
        _ => json!({}),
    }
}

//! Clients that say anything, in pieces and at once: the body of the fuzz target `wire`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::client::Client;
use super::scanner::Scanner;
use super::server::{Control, Facts, Ticket, Wish};
use super::wire::{MAX_LINE, Refused};

/// What a program is made of beside its own bytes.
const WORDS: [&str; 27] = [
    "{\"execute\": \"qmp_capabilities\"}\n",
    "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}}\r\n",
    "{\"execute\": \"query-version\", \"id\": 1}\n",
    "{\"execute\": \"query-commands\"}\n",
    "{\"execute\": \"query-status\"}\n",
    "{\"execute\": \"query-pci\"}\n",
    "{\"execute\": \"x-query-strait\"}\n",
    "{\"execute\": \"stop\", \"id\": {}}\n",
    "{\"execute\": \"cont\"}\n",
    "{\"execute\": \"system_reset\"}\n",
    "{\"execute\": \"quit\"}\n",
    "{\"execute\": \"device_add\", \"arguments\": {\"host\": \"01:00.0\", \"id\": \"a\"}}\n",
    "{\"execute\": \"device_del\", \"arguments\": {\"id\": \"a\", \"force\": true}}\n",
    "{\"execute\": \"system_powerdown\"}\n",
    "{\"execute\": \"stop\", \"arguments\": ",
    "{\"execute\": ",
    "\"id\": ",
    "\"arguments\": {",
    "{\"",
    "\"}",
    "}\n",
    "\n",
    " \t\r\n",
    ", ",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "\"\\ud800\"",
    "-1e999",
];

/// Clients at a time.
const CLIENTS: usize = 3;

/// Turns in which all that was said in one step has been heard: a client's lines are heard one in a turn.
const TURNS: usize = 100_000;

struct Answers;

impl Facts for Answers {
    fn status(&self) -> &'static str {
        "running"
    }

    fn pci(&self) -> Value {
        json!([])
    }

    fn cpus(&self) -> Value {
        json!([])
    }

    fn strait(&self) -> Value {
        json!({})
    }
}

/// The end that a client has, with what it may expect.
struct End {
    stream: UnixStream,
    /// What is known of the command that is being said, and its bytes.
    scanner: Scanner,
    len: usize,
    /// Commands, which want an answer each.
    said: usize,
    answered: usize,
    heard: Vec<u8>,
}

struct Scene {
    control: Control,
    /// Clients who wait for a device.
    owed: Vec<Ticket>,
    ends: Vec<End>,
    is_running: bool,
}

/// Whatever clients say, each command gets one answer, in JSON, and no client keeps more than one in memory.
///
/// # Panics
/// When that is not so.
pub fn wire(bytes: &[u8]) {
    let mut scene = Scene {
        control: Control::new(Vec::new()),
        owed: Vec::new(),
        ends: Vec::new(),
        is_running: true,
    };
    for _ in 0..CLIENTS {
        scene.connect();
    }
    let mut rest = bytes;
    while let [kind, argument, behind @ ..] = rest {
        rest = behind;
        let end = usize::from(*kind >> 4) % scene.ends.len();
        match kind & 0xf {
            0..=7 => scene.say(end, WORDS[usize::from(*argument) % WORDS.len()].as_bytes()),
            8..=11 => {
                let (own, behind) = rest.split_at(rest.len().min(usize::from(*argument) % 16));
                rest = behind;
                scene.say(end, own);
            }
            // As long as a line may be, or a little more or less.
            12 => scene.say(end, &vec![b'x'; MAX_LINE - 128 + usize::from(*argument)]),
            13 => scene.say(end, &vec![b' '; usize::from(*argument) * 16]),
            14 => scene.happen(*argument),
            _ => {
                scene.ends.remove(end);
                scene.connect();
            }
        }
    }
    for end in 0..scene.ends.len() {
        scene.say(end, b"\n");
    }
    scene.hear_all();
    for end in &scene.ends {
        assert_eq!(end.answered, end.said, "each command gets one answer");
        assert!(end.heard.is_empty(), "lines are whole");
    }
}

impl Scene {
    fn connect(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket");
        self.control.meet_one(Client::new(theirs).expect("a socket"));
        self.ends.push(End {
            stream: ours,
            scanner: Scanner::default(),
            len: 0,
            said: 0,
            answered: 0,
            heard: Vec::new(),
        });
    }

    fn say(&mut self, end: usize, mut bytes: &[u8]) {
        self.ends[end].expect(bytes);
        while !bytes.is_empty() {
            match self.ends[end].stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.hear_all(),
                Err(error) => panic!("it was hung up on: {error}"),
            }
        }
        self.hear_once();
    }

    /// The machine's side of it.
    fn happen(&mut self, what: u8) {
        match what % 4 {
            0 => self.control.reset(what & 4 != 0),
            1 => self.control.panicked(),
            2 => self.is_running = !self.is_running,
            _ => {}
        }
        self.control.settle(self.is_running);
    }

    fn hear_all(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS {
            quiet = match self.hear_once() {
                true => 0,
                false => quiet + 1,
            };
            if quiet > 1 {
                return;
            }
        }
        panic!("it does not come to an end");
    }

    /// Whether anything came of it.
    fn hear_once(&mut self) -> bool {
        let before = self.control.kept();
        let wish = self.control.hear(&Answers);
        assert!(
            self.control.kept() <= CLIENTS * 2 * MAX_LINE,
            "a command and what came behind it"
        );
        match &wish {
            Some(Wish::Attach(ticket, _)) => self.owed.push(*ticket),
            Some(Wish::Detach(ticket, ..)) => self.control.answer(*ticket, Err(Refused::no_device("gone"))),
            Some(_) => self.control.settle(self.is_running),
            // A device comes when nothing else happens.
            None => {
                for ticket in self.owed.drain(..) {
                    self.control.answer(ticket, Ok(json!({})));
                }
            }
        }
        let heard = self.ends.iter_mut().map(End::hear).sum::<usize>();
        wish.is_some() || heard > 0 || self.control.kept() != before
    }
}

impl End {
    /// Takes down what is to be answered of it.
    fn expect(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.len == 0 && byte.is_ascii_whitespace() {
                continue;
            }
            self.len += 1;
            if self.scanner.ends_with(*byte) {
                self.said += 1;
                self.len = 0;
            } else if self.len == MAX_LINE {
                self.scanner.give_up();
            }
        }
    }

    fn hear(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let Ok(len) = self.stream.read(&mut bytes) else {
            return 0;
        };
        self.heard.extend_from_slice(&bytes[..len]);
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let value: Value = serde_json::from_slice(&line).expect("JSON");
            let is_answer = value.get("return").is_some() || value.get("error").is_some();
            assert!(
                is_answer || value.get("event").is_some() || value.get("QMP").is_some(),
                "{value}"
            );
            self.answered += usize::from(is_answer);
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use strait_devices::testing::fuzz::replay;

    use super::*;

    #[test]
    fn the_control_socket_survives_any_client() {
        replay(wire);
    }
}

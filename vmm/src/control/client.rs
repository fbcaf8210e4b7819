//! One connection: what has come of a command, and what it has not read yet.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::scanner::Scanner;
use super::wire::MAX_LINE;

/// Bytes read at a time.
const CHUNK: usize = 4096;

/// Bytes that a client may leave unread; who leaves more is dropped.
const MAX_UNREAD: usize = 1 << 20;

/// A command that came, or what stands in its place.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// It was longer than is listened to, and is gone.
    TooLong,
}

/// A client of the socket.
pub(super) struct Client {
    /// Its number among all that came, from 1 on.
    pub(super) number: u64,
    stream: UnixStream,
    input: Vec<u8>,
    scanner: Scanner,
    /// Bytes of the input that the scanner has seen, up to the end of the first command.
    scanned: usize,
    /// The first command has come whole.
    is_whole: bool,
    /// It is too long; what has come of it is gone.
    skips: bool,
    output: Vec<u8>,
    /// Said qmp_capabilities.
    pub(super) is_ready: bool,
    /// The id of its command that is not answered yet; it is not listened to until then.
    pub(super) owed: Option<Option<Value>>,
    /// Nothing more comes from it.
    has_ended: bool,
    /// The connection is of no more use.
    is_gone: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            number: 0,
            owed: None,
            stream,
            input: Vec::new(),
            scanner: Scanner::default(),
            scanned: 0,
            is_whole: false,
            skips: false,
            output: Vec::new(),
            is_ready: false,
            has_ended: false,
            is_gone: false,
        })
    }

    /// Whether it has nothing more to say and to hear.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone || (self.has_ended && self.owed.is_none() && !self.has_line() && !self.is_behind())
    }

    /// Whether a command waits to be taken, and may be.
    pub(super) fn has_line(&self) -> bool {
        self.owed.is_none() && self.is_whole
    }

    /// Bytes that came of it and were not taken.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn kept(&self) -> usize {
        self.input.len()
    }

    /// Whether more may come from it.
    pub(super) fn is_open(&self) -> bool {
        !self.has_ended
    }

    /// Whether it does not read as fast as it is told.
    pub(super) fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads what has come, unless commands of before wait. It waits for nothing.
    pub(super) fn fill(&mut self) {
        if self.is_whole || self.has_ended || self.owed.is_some() {
            return;
        }
        let mut bytes = [0; CHUNK];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.has_ended = true,
            Ok(len) => self.input.extend_from_slice(&bytes[..len]),
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.is_gone = true,
        }
        self.scan();
    }

    /// The next command that has come whole.
    pub(super) fn take_line(&mut self) -> Option<Line> {
        if !self.has_line() {
            return None;
        }
        let line: Vec<u8> = self.input.drain(..self.scanned).collect();
        (self.scanned, self.is_whole) = (0, false);
        let is_too_long = mem::take(&mut self.skips);
        self.scan();
        Some(match is_too_long {
            true => Line::TooLong,
            false => Line::Whole(line),
        })
    }

    /// Looks for the end of the first command, of which no more is kept than a command may have.
    fn scan(&mut self) {
        if self.scanned == 0 && !self.skips {
            let blank = self.input.iter().take_while(|byte| byte.is_ascii_whitespace());
            let blank = blank.count();
            self.input.drain(..blank);
        }
        while let Some(byte) = self.input.get(self.scanned).filter(|_| !self.is_whole) {
            self.is_whole = self.scanner.ends_with(*byte);
            self.scanned += 1;
            if self.scanned == MAX_LINE && !self.is_whole {
                self.scanner.give_up();
                self.skips = true;
                self.input.drain(..self.scanned);
                self.scanned = 0;
            }
        }
    }

    /// Tells it something, at once as far as it reads.
    pub(super) fn tell(&mut self, value: &Value) {
        self.output.extend_from_slice(value.to_string().as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.flush();
        if self.output.len() > MAX_UNREAD {
            self.is_gone = true;
        }
    }

    /// Writes what is left, as far as it is read.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() && !self.is_gone {
            match self.stream.write(&self.output) {
                Ok(len) => _ = self.output.drain(..len),
                Err(error) if is_for_later(&error) => return,
                Err(_) => self.is_gone = true,
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_comes_in_pieces_and_several_come_at_once() {
        let (mut other, stream) = UnixStream::pair().expect("a pair");
        let mut client = Client::new(stream).expect("a client");
        other.write_all(b"\r\n on").expect("room");
        client.fill();
        assert_eq!(client.take_line(), None);
        other.write_all(b"e\n{}\n[]").expect("room");
        client.fill();
        assert_eq!(client.take_line(), Some(Line::Whole(b"one\n".to_vec())));
        assert_eq!(client.take_line(), Some(Line::Whole(b"{}".to_vec())));
        assert_eq!(client.take_line(), Some(Line::Whole(b"[]".to_vec())));
        assert_eq!(client.take_line(), None);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_the_next_one_is_heard() {
        let (mut other, stream) = UnixStream::pair().expect("a pair");
        let mut client = Client::new(stream).expect("a client");
        for _ in 0..1024 {
            other.write_all(&[b'x'; CHUNK]).expect("room");
            client.fill();
            assert!(client.input.len() <= MAX_LINE);
        }
        other.write_all(b"\nnext\n").expect("room");
        client.fill();
        assert_eq!(client.take_line(), Some(Line::TooLong));
        assert_eq!(client.take_line(), Some(Line::Whole(b"next\n".to_vec())));
    }

    #[test]
    fn a_command_has_so_many_bytes_and_no_more() {
        let (mut other, stream) = UnixStream::pair().expect("a pair");
        let mut client = Client::new(stream).expect("a client");
        for (len, fits) in [(MAX_LINE, true), (MAX_LINE + 1, false), (MAX_LINE, true)] {
            let text = format!("{{{}}}", " ".repeat(len - 2));
            for part in text.as_bytes().chunks(CHUNK) {
                other.write_all(part).expect("room");
                client.fill();
            }
            let wanted = if fits {
                Line::Whole(text.into_bytes())
            } else {
                Line::TooLong
            };
            assert!(client.take_line() == Some(wanted), "{len}");
        }
    }

    #[test]
    fn a_client_that_stops_reading_is_dropped() {
        let (_other, stream) = UnixStream::pair().expect("a pair");
        let mut client = Client::new(stream).expect("a client");
        let text = json!("x".repeat(CHUNK));
        let told = (0..10_000).take_while(|_| {
            client.tell(&text);
            !client.is_gone()
        });
        assert!(told.count() < 9_999);
        assert!(client.output.len() <= MAX_UNREAD + 2 * CHUNK);
    }
}

//! Lines of which the reader gets all or nothing.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::output::Target;

/// How long the last line waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file that takes lines. One for which there is no room is left out, and the next that finds some tells how many
/// were: who reads late misses what was between, and never sees half of it. A pipe takes up to 4,096 bytes as a whole
/// (pipe(7), PIPE_BUF), which only the line of a start with many devices may exceed: of that, what finds no room comes
/// before the next.
pub(super) struct Lines {
    target: Target,
    /// As it was opened: of a pipe that has a name, this may be the only reader, without which it takes nothing.
    _file: OwnedFd,
    /// What was not taken of the line before.
    rest: Vec<u8>,
    lost: u64,
}

impl Lines {
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            target: Target::unwaiting(file.as_fd())?,
            _file: file,
            rest: Vec::new(),
            lost: 0,
        })
    }

    /// Writes an event, if there is room for it. That nobody reads any more is the reader's affair.
    pub(super) fn put(&mut self, mut event: Value) {
        if self.lost > 0 {
            event["lost"] = json!(self.lost);
        }
        match self.offer(&event) {
            true => self.lost = 0,
            false => self.lost += 1,
        }
    }

    /// The same with some time for the reader to make room.
    pub(super) fn put_last(&mut self, event: Value) {
        let until = Instant::now() + PATIENCE;
        while !self.has_room() && Instant::now() < until {}
        self.put(event);
    }

    /// Whether there is room within a tenth of a second.
    fn has_room(&self) -> bool {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        poll(&mut [PollFd::new(&self.target, PollFlags::OUT)], Some(&wait)).is_ok_and(|count| count > 0)
    }

    fn offer(&mut self, event: &Value) -> bool {
        let rest = self.target.offer(&self.rest).unwrap_or(self.rest.len());
        self.rest.drain(..rest);
        let line = format!("{event}\n");
        if !self.rest.is_empty() {
            return false;
        }
        match self.target.offer(line.as_bytes()) {
            Ok(0) | Err(_) => false,
            Ok(taken) => {
                self.rest.extend_from_slice(&line.as_bytes()[taken..]);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, PipeReader, Read as _};

    use super::*;

    fn piped() -> (BufReader<PipeReader>, Lines) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (BufReader::new(reader), Lines::new(writer.into()).expect("a file"))
    }

    fn next(reader: &mut impl io::BufRead) -> Value {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn a_reader_that_is_late_gets_whole_lines_and_hears_how_many_it_missed() {
        let (mut reader, mut lines) = piped();
        for number in 0..10_000 {
            lines.put(json!({"number": number, "fill": "x".repeat(number % 300)}));
        }
        let mut seen = 0;
        while next(&mut reader)["number"] == seen {
            seen += 1;
            if lines.lost == 0 {
                break;
            }
            lines.put(json!({"number": "last"}));
        }
        let mut last = json!(null);
        while last["number"] != "last" {
            last = next(&mut reader);
        }
        assert!(last["lost"].as_u64().expect("a number") > 1_000, "{last}");
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_finished_before_the_next() {
        let (mut reader, mut lines) = piped();
        let long = json!("x".repeat(100_000));
        lines.put(long.clone());
        lines.put(json!({"between": true}));
        let mut first = vec![0; 60_000];
        reader.read_exact(&mut first).expect("a piece");
        lines.put(json!({"next": true}));
        let mut last = String::new();
        reader.read_line(&mut last).expect("a piece");
        assert_eq!(
            String::from_utf8(first).expect("text") + &last,
            format!("{long}\n")
        );
        assert_eq!(next(&mut reader), json!({"next": true, "lost": 1}));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        let (reader, mut lines) = piped();
        drop(reader);
        lines.put(json!({}));
        lines.put_last(json!({}));
        assert_eq!(lines.lost, 2);
    }

    #[test]
    fn the_last_line_waits_for_room() {
        let (mut reader, mut lines) = piped();
        while lines.lost == 0 {
            lines.put(json!({"fill": "x".repeat(1000)}));
        }
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            std::thread::sleep(PATIENCE / 4);
            reader.read_to_string(&mut text).expect("text");
            text
        });
        lines.put_last(json!({"last": true}));
        drop(lines);
        let text = reading.join().expect("text");
        let last: Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
        assert_eq!(last["last"], true);
    }
}

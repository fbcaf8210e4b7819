//! What was told of a run, and what is to be.

use std::io;

use serde_json::{Value, json};

use super::lines::Lines;
use super::notify::Notify;
use super::target::StatusTarget;
use crate::control;

/// A file for `--status` that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--status {0}: cannot be written to")]
pub struct StatusError(StatusTarget, #[source] io::Error);

/// Where a run stands, as others know it.
pub struct Status {
    lines: Option<Lines>,
    manager: Option<Notify>,
    /// Whether the guest runs or stands still, once it has started.
    is_running: Option<bool>,
    /// Why it ended, by QEMU's name.
    reason: Option<&'static str>,
}

impl Status {
    /// Tells those whom this process was told of.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(target: Option<&StatusTarget>) -> Result<Self, StatusError> {
        let lines = target.map(|target| {
            let opened = target.open().and_then(Lines::new);
            opened.map_err(|source| StatusError(target.clone(), source))
        });
        Ok(Self {
            lines: lines.transpose()?,
            manager: Notify::inherited(),
            is_running: None,
            reason: None,
        })
    }

    /// Everything is in its place, and no vCPU has run.
    pub fn prepared(&mut self) {
        if self.is_running.is_none() {
            self.say("prepared", json!({"pid": std::process::id()}));
        }
    }

    /// The guest runs or stands still. `started` tells what it is and has when it runs for the first time.
    pub fn settle(&mut self, is_running: bool, started: impl FnOnce() -> Value) {
        match (self.is_running, is_running) {
            (Some(before), now) if before == now => return,
            // A debugger keeps it from its first instruction.
            (None, false) => return,
            (None, true) => {
                self.say("started", started());
                self.tell("READY=1");
            }
            (Some(_), true) => self.say("resumed", json!({})),
            (Some(_), false) => self.say("paused", json!({})),
        }
        self.is_running = Some(is_running);
    }

    /// The guest is over, for a reason by QEMU's name; its devices go back now.
    pub fn ends(&mut self, reason: &'static str) {
        self.reason = Some(reason);
        self.tell("STOPPING=1");
    }

    /// Nothing of it is left. The process ends with this code, and with a message where something went wrong.
    pub fn stopped(&mut self, code: u8, message: Option<&str>) {
        let reason = self.reason.unwrap_or(match message {
            Some(_) => "host-error",
            // Before the guest ran.
            None => "host-signal",
        });
        let mut data = json!({"reason": reason, "code": code});
        if let Some(message) = message {
            // A line has room for no more.
            data["message"] = json!(message.chars().take(500).collect::<String>());
        }
        if let Some(lines) = &mut self.lines {
            lines.put_last(control::event("stopped", Some(data)));
        }
    }

    fn say(&mut self, event: &str, data: Value) {
        if let Some(lines) = &mut self.lines {
            lines.put(control::event(event, Some(data)));
        }
    }

    fn tell(&self, state: &str) {
        if let Some(manager) = &self.manager {
            manager.tell(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn status(file: &Path) -> Status {
        Status::open(Some(&StatusTarget::File(file.to_owned()))).expect("a file")
    }

    /// The events that were told, with their data.
    fn told(file: &Path) -> Vec<(String, Value)> {
        let text = fs::read_to_string(file).expect("text");
        let lines = text.lines().map(|line| {
            let mut event: Value = serde_json::from_str(line).expect("JSON");
            assert!(event["timestamp"]["seconds"].is_u64(), "{event}");
            (
                event["event"].as_str().expect("a name").to_owned(),
                event["data"].take(),
            )
        });
        lines.collect()
    }

    #[test]
    fn what_is_new_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("status");
        let mut status = status(&file);
        status.prepared();
        status.settle(false, || json!(null));
        for is_running in [true, true, false, false, true] {
            status.settle(is_running, || json!({"devices": []}));
        }
        // A reset of the guest is no new start.
        status.prepared();
        status.settle(true, || json!(null));
        status.ends("guest-shutdown");
        status.stopped(0, None);
        let told = told(&file);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["prepared", "started", "paused", "resumed", "stopped"]);
        assert_eq!(told[1].1, json!({"devices": []}));
        assert_eq!(told[4].1, json!({"reason": "guest-shutdown", "code": 0}));
    }

    #[test]
    fn a_pipe_keeps_what_was_told_before_its_reader_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("status");
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.expect("mkfifo").success());
        let mut status = status(&file);
        status.prepared();
        let mut pipe = io::BufReader::new(fs::File::open(&file).expect("a pipe"));
        let mut line = String::new();
        io::BufRead::read_line(&mut pipe, &mut line).expect("a line");
        assert!(line.contains("\"prepared\""), "{line}");
    }

    #[test]
    fn a_start_that_fails_is_told_with_its_message() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("status");
        status(&file).stopped(1, Some("no \"/dev/kvm\""));
        assert_eq!(
            told(&file)[0].1,
            json!({"reason": "host-error", "code": 1, "message": "no \"/dev/kvm\""})
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused() {
        let refused = Status::open(Some(&StatusTarget::File("/proc/nowhere/status".into()))).err();
        let text = strait_devices::Chain(&refused.expect("no folder")).to_string();
        assert!(
            text.starts_with("--status /proc/nowhere/status: cannot be written to: No such"),
            "{text}"
        );
    }
}

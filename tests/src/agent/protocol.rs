//! What the two ends say: one JSON object a line, answers in any order. A request has its length in front: a serial
//! line can lose bytes on the way to the lab host.

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The name of the virtio serial port.
pub(crate) const PORT: &str = "strait.lab";

/// A request and the number its answer carries.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    pub(crate) id: u64,
    pub(crate) body: T,
}

impl Numbered<Request> {
    /// The line that carries it. An empty line before it ends what was left of another.
    pub(crate) fn to_line(&self) -> Result<String> {
        let text = serde_json::to_string(self)?;
        Ok(format!("\n{} {text}\n", text.len()))
    }

    /// What a line carries; `None` where it is not whole.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let (len, text) = line.trim_end().split_once(' ')?;
        (len.parse() == Ok(text.len())).then(|| serde_json::from_str(text).ok())?
    }
}

/// What the harness asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Runs a shell script to its end.
    Exec { script: String, limit_ms: u64 },
    /// Starts a program that stays, its output kept under `name`.
    Start { name: String, arguments: Vec<String> },
    /// Types into a started program.
    Input { name: String, text: String },
    /// Closes a started program's input.
    CloseInput { name: String },
    /// What a started program wrote from byte `from` on; waits for more if there is nothing.
    Output { name: String, from: u64, wait_ms: u64 },
    /// Sends a signal to a started program.
    Signal { name: String, signal: i32 },
    /// Waits for the end of a started program.
    Wait { name: String, limit_ms: u64 },
}

/// What the lab host answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done(Finished),
    Started { pid: u32 },
    Output { text: String, next: u64, running: bool },
    Ok,
    Failed { message: String },
}

/// A program that ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// The exit code, or 128 and the signal as in a shell.
    pub(crate) code: i32,
    /// Standard output; for started programs it is fetched apart.
    pub(crate) output: String,
    /// Standard error.
    pub(crate) errors: String,
    /// From start to end, measured in the lab host.
    pub(crate) elapsed_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_lost_a_byte_is_none() {
        let body = Request::Exec {
            script: "echo 10000".to_owned(),
            limit_ms: 10_000,
        };
        let line = Numbered { id: 7, body }.to_line().expect("a line");
        let line = line.trim();
        assert_eq!(
            Numbered::<Request>::from_line(line).map(|request| request.id),
            Some(7)
        );
        let start = line.find('{').expect("an object");
        for lost in start..line.len() {
            let damaged = [&line[..lost], &line[lost + 1..]].concat();
            assert!(Numbered::<Request>::from_line(&damaged).is_none(), "{damaged}");
        }
        assert!(Numbered::<Request>::from_line("").is_none());
    }
}

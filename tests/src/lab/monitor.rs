//! The outer QEMU's monitor: what happens to hardware from outside.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What the monitor writes when it waits for a command.
const PROMPT: &str = "(qemu) ";

/// An answer takes milliseconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What is asked of a machine that stands still: where its CPUs are and which interrupts wait.
const POST_MORTEM: [&str; 5] = [
    "info status",
    "info registers -a",
    "info lapic 0",
    "info lapic 1",
    "info registers -a",
];

/// A connection, in the language that people type.
pub(crate) struct Monitor {
    socket: UnixStream,
}

impl Monitor {
    /// Connects to a monitor, which takes one connection at a time.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).context("Cannot reach the monitor of the lab machine")?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self { socket };
        monitor.read_answer()?;
        Ok(monitor)
    }

    /// Reports an uncorrectable error of the device with this id.
    pub(crate) fn inject_error(&mut self, id: &str, error: &str) -> Result<()> {
        let answer = self.command(&format!("pcie_aer_inject_error {id} {error}"))?;
        // The first lines echo what was typed, with the control characters of a line editor.
        let last = answer.lines().map(str::trim).rfind(|line| !line.is_empty());
        let last = last.unwrap_or_default();
        ensure!(last.starts_with("OK"), "The monitor answers {last:?}");
        Ok(())
    }

    /// Plugs a device in, by the monitor's own command.
    pub(crate) fn plug(&mut self, command: &str) -> Result<()> {
        let answer = self.command(command)?;
        let error = answer.lines().find(|line| line.contains("Error"));
        ensure!(
            error.is_none(),
            "The monitor answers {:?} to `{command}`",
            error.unwrap_or_default()
        );
        Ok(())
    }

    /// The state of the CPUs and of their interrupt controllers, for the log of a machine that stands still.
    pub(crate) fn post_mortem(&mut self) -> Result<String> {
        POST_MORTEM.into_iter().map(|line| self.command(line)).collect()
    }

    fn command(&mut self, line: &str) -> Result<String> {
        writeln!(self.socket, "{line}").context("The lab machine has stopped")?;
        self.read_answer()
    }

    /// Everything up to the next prompt.
    fn read_answer(&mut self) -> Result<String> {
        let mut text = Vec::new();
        let mut bytes = [0; 256];
        while !text.ends_with(PROMPT.as_bytes()) {
            let len = self
                .socket
                .read(&mut bytes)
                .context("The monitor does not answer")?;
            ensure!(len > 0, "The monitor has gone");
            text.extend_from_slice(&bytes[..len]);
        }
        Ok(String::from_utf8_lossy(&text).trim_end_matches(PROMPT).to_owned())
    }
}

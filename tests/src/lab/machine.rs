//! The machine that everything else happens in, as it runs.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::kind::Kind;
use super::qemu::{AGENT_SOCKET, Console};
use super::share::Share;
use super::{bochs, qemu};
use crate::agent::Carrier;
use crate::supplies::Supplies;

/// A minute is usual on a quiet machine.
const LINE_LIMIT: Duration = Duration::from_secs(900);
const POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// A running lab machine, killed when this value is dropped.
pub(crate) struct Machine {
    emulator: Child,
    port: Port,
}

/// The harness's end of the agent's port.
enum Port {
    /// Where QEMU opens it.
    Socket(PathBuf),
    /// A serial line.
    Line(OwnedFd),
}

impl Machine {
    /// Starts the machine.
    pub(crate) fn start(supplies: &Supplies, share: &Share, kind: Kind, console: &Console) -> Result<Self> {
        let (mut command, port) = match (kind.intel_model(), console) {
            (None, console) => {
                let command = qemu::command(supplies, share, kind, console)?;
                (command, Port::Socket(share.path(AGENT_SOCKET)))
            }
            (Some(model), Console::Log { kernel, emulator }) => {
                let (command, line) = bochs::command(supplies, share, model, kernel, emulator)?;
                (command, Port::Line(line))
            }
            (Some(_), Console::Terminal) => bail!("A shell needs a machine of another kind"),
        };
        let emulator = command.spawn().context("Cannot start the lab machine")?;
        Ok(Self { emulator, port })
    }

    /// What the agent is connected by.
    pub(crate) fn carrier(&self) -> Carrier {
        match self.port {
            Port::Socket(_) => Carrier::Channel,
            Port::Line(_) => Carrier::Line,
        }
    }

    /// Connects to the agent's port as soon as it is open.
    pub(crate) fn connect(&mut self) -> Result<File> {
        let path = match &self.port {
            Port::Socket(path) => path,
            Port::Line(line) => {
                let line = line.try_clone().context("Cannot share the port")?.into();
                return self.wait_for_line(line);
            }
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match UnixStream::connect(path) {
                Ok(socket) => return Ok(OwnedFd::from(socket).into()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("The lab machine opened no port for its agent");
                }
                Err(_) => sleep(Duration::from_millis(50)),
            }
            if let Some(status) = self
                .emulator
                .try_wait()
                .context("Cannot wait for the lab machine")?
            {
                bail!("The lab machine ended at once ({status})");
            }
        }
    }

    /// What is sent over a serial line before the lab host listens is lost: it says when it does.
    fn wait_for_line(&mut self, mut line: File) -> Result<File> {
        let deadline = Instant::now() + LINE_LIMIT;
        let mut byte = [0];
        while byte != *b"\n" {
            // A line that nobody has opened at the other end yet, or no more, is an error (EIO) at this one.
            let waits =
                poll(&mut [PollFd::new(&line, PollFlags::IN)], Some(&POLL)).is_ok_and(|ready| ready == 0);
            if waits || line.read_exact(&mut byte).is_err() {
                if let Some(status) = self
                    .emulator
                    .try_wait()
                    .context("Cannot wait for the lab machine")?
                {
                    bail!("The lab machine ended at once ({status})");
                }
                ensure!(Instant::now() < deadline, "The lab host did not come up");
                sleep(Duration::from_millis(50));
            }
        }
        Ok(line)
    }

    /// CPU time that the machine has used, all its CPUs and devices together: what a measurement needs where
    /// the build machine has other work too.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.emulator.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("Cannot read {path}"))?;
        parse_cpu_time(&stat).with_context(|| format!("{path} is not as proc(5) says"))
    }

    /// Waits until the machine is powered off from inside.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        self.emulator.wait().context("Cannot wait for the lab machine")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// The fields behind the program's name, which may hold spaces: user and system time are 14 and 15 of all,
/// in hundredths of a second.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    let (user, system) = (ticks(fields.next())?, ticks(fields.next())?);
    Some(Duration::from_millis(10 * (user + system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 120 30 0 0 20 0 4 0";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(1500)));
    }
}

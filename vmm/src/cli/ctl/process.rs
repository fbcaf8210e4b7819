//! The process behind a guest, whose end is the end of everything: it hangs up while devices still go back.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What the kernel calls the process.
const NAME: &str = "strait";

/// A process of strait, held by a descriptor: its number may be another's when it has ended.
pub(super) struct Process(OwnedFd);

impl Process {
    /// The one with this number, if it is strait: a guest in a container tells a number that means nothing here.
    pub(super) fn find(number: u64) -> Option<Self> {
        let number = i32::try_from(number).ok()?;
        let process = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
        let name = fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
        (name.trim_end() == NAME).then_some(Self(process))
    }

    /// Whether it ends before `until`.
    pub(super) fn ends_before(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|count| count > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_is_not_taken_for_a_guest() {
        assert!(Process::find(1).is_none());
        assert!(Process::find(0).is_none());
        assert!(Process::find(u64::MAX).is_none());
    }
}

//! What a VMM does while a stream runs through its guest.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::counting::{Cpu, Trace, WORK};
use crate::shell::ThisHost;

/// A stream's first part, in which nothing is counted.
const SETTLE: Duration = Duration::from_secs(1);
/// The part in which everything is counted.
const WINDOW: Duration = Duration::from_secs(3);

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    seconds: f64,
    userspace_exits: f64,
    kvm_exits: f64,
    cpu_s: f64,
}

impl Window {
    /// Looks at a process for as long as a window is.
    pub(super) fn take(pid: u32) -> Result<Self> {
        sleep(SETTLE);
        let trace = Trace::start(&ThisHost, WORK)?;
        let (start, used) = (Instant::now(), Cpu::sample(&ThisHost, pid)?);
        sleep(WINDOW);
        let cpu = Cpu::sample(&ThisHost, pid)?.since(used);
        let seconds = start.elapsed().as_secs_f64();
        let counts = trace.finish()?;
        Ok(Self {
            seconds,
            userspace_exits: counts.total("userspace_exits") as f64,
            kvm_exits: counts.total("kvm_exits") as f64,
            cpu_s: cpu.own_s + cpu.system_s,
        })
    }

    /// What falls to each of the packets of a stream that took so many seconds: exits to user space, exits to KVM, and
    /// microseconds of the VMM's CPU time, its guest's not counted.
    pub(super) fn a_packet(&self, packets: f64, stream_s: f64) -> [f64; 3] {
        let meanwhile = packets / stream_s * self.seconds;
        [self.userspace_exits, self.kvm_exits, self.cpu_s * 1e6].map(|all| all / meanwhile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_to_a_packet_is_of_those_of_the_window() {
        let window = Window {
            seconds: 3.0,
            userspace_exits: 0.0,
            kvm_exits: 600.0,
            cpu_s: 0.3,
        };
        // 200 a second.
        assert_eq!(window.a_packet(1200.0, 6.0), [0.0, 1.0, 500.0]);
        assert!(
            window
                .a_packet(0.0, 6.0)
                .into_iter()
                .all(|figure| !figure.is_finite())
        );
    }
}

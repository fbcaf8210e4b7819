//! What the time of a start is spent on, by what the VMM asks of the host's kernel, alike for every VMM.

use anyhow::{Context, Result};

use crate::shell::Shell;

use super::MAP;

/// A part of a guest's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
}

/// How many there are.
pub(super) const COUNT: usize = 5;

/// From the start of the process to its end, one behind the other.
pub(super) const PHASES: [Phase; COUNT] = [
    Phase {
        id: "open",
        title: "open: the process and its virtual machine, until its device is open",
    },
    Phase {
        id: "map",
        title: "map: RAM is populated and mapped for DMA, where the guest waits for it",
    },
    Phase {
        id: "load",
        title: "load: the rest, until the guest's first instruction",
    },
    Phase {
        id: "kernel",
        title: "kernel: firmware and kernel, until the guest's first program",
    },
    Phase {
        id: "init",
        title: "init: the guest's programs, and the end of all",
    },
];

/// Phases before the guest's first instruction.
pub(super) const FIRST_INSTRUCTION: usize = 3;

/// Low half of KVM_RUN.
const RUN: u64 = 0xae80;

/// Low half of VFIO_GROUP_GET_DEVICE_FD, which resets the function.
const OPEN: u64 = 0x3b6a;

const INSTANCE: &str = "/sys/kernel/tracing/instances/strait-start";

/// Notes down what programs are started and which ioctls they make.
pub struct StartTrace<'a> {
    shell: &'a dyn Shell,
}

/// When a start came how far, in seconds from the start of the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    open: f64,
    mapped: f64,
    run: f64,
    ready: f64,
}

impl<'a> StartTrace<'a> {
    /// Begins with nothing noted down. Ends when a guest is entered for the first time: from there on it costs a look at
    /// a flag for each entry.
    pub fn start(shell: &'a dyn Shell) -> Result<Self> {
        Self::begin(shell, "echo traceoff > events/kvm/kvm_entry/trigger")
    }

    /// The same until it is finished, for a VMM that maps memory beside its guest's start. Each exit of the guest is noted
    /// down then: it is for VMMs that have few.
    pub fn start_whole(shell: &'a dyn Shell) -> Result<Self> {
        Self::begin(shell, "echo 8192 > buffer_size_kb")
    }

    fn begin(shell: &'a dyn Shell, first: &str) -> Result<Self> {
        let trace = Self { shell };
        shell.sh(&format!(
            "set -e\nmkdir -p {INSTANCE}; cd {INSTANCE}\n{first}\n\
             for event in sched/sched_process_exec syscalls/sys_enter_ioctl syscalls/sys_exit_ioctl; do\n\
                 echo 1 > events/$event/enable\ndone"
        ))?;
        Ok(trace)
    }

    /// What was noted down.
    pub fn finish(self) -> Result<Moments> {
        let text = self.shell.sh(&format!("cat {INSTANCE}/trace"))?;
        Moments::parse(&text).context("The host's kernel noted down no start of a virtual machine")
    }
}

impl Drop for StartTrace<'_> {
    fn drop(&mut self) {
        let _ = self.shell.sh(&format!(
            "echo '!traceoff' > {INSTANCE}/events/kvm/kvm_entry/trigger; rmdir {INSTANCE}"
        ));
    }
}

impl Moments {
    /// A line is `PROGRAM-PID [CPU] FLAGS SECONDS: WHAT`.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<_> = text.lines().filter_map(Line::parse).collect();
        let run = lines.iter().position(|line| line.asks(RUN))?;
        let before = &lines[..run];
        let start = before
            .iter()
            .rfind(|line| line.what.starts_with("sched_process_exec"))?
            .seconds;
        let answer = |asked: usize| {
            let mut behind = lines[asked..].iter();
            Some(behind.find(|line| line.is_answer_to(&lines[asked]))?.seconds - start)
        };
        let run_s = lines[run].seconds - start;
        // What has no answer by then goes on beside the guest's start.
        let last = |low| {
            let asked = before.iter().rposition(|line| line.asks(low))?;
            Some(answer(asked).unwrap_or(run_s).min(run_s))
        };
        let open = last(OPEN).unwrap_or(run_s);
        // A vCPU's own mappings are of what its guest moves.
        let is_of_ram = |line: &Line<'_>| line.asks(MAP) && !line.is_of_vcpu();
        let ready = lines.iter().rposition(is_of_ram).and_then(answer);
        Some(Self {
            open,
            // There are VMMs that map RAM before they open the device.
            mapped: last(MAP).map_or(open, |mapped| mapped.max(open)),
            run: run_s,
            ready: ready.unwrap_or(run_s),
        })
    }

    /// Seconds until the last of RAM was mapped for DMA, where that was noted down; else as [`Self::first_instruction_s`].
    pub fn dma_ready_s(self) -> f64 {
        self.ready
    }

    /// Seconds until the guest's first instruction.
    pub fn first_instruction_s(self) -> f64 {
        self.run
    }

    /// The length in seconds of each phase, with when the guest's first program ran and when all was over.
    pub fn phases(self, ready: f64, end: f64) -> [f64; COUNT] {
        let Self {
            open, mapped, run, ..
        } = self;
        [open, mapped - open, run - mapped, ready - run, end - ready]
    }
}

struct Line<'a> {
    thread: &'a str,
    seconds: f64,
    what: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (thread, rest) = line.split_once(" [")?;
        let (_, rest) = rest.split_once(']')?;
        let (stamp, what) = rest.split_once(": ")?;
        Some(Self {
            thread: thread.trim(),
            seconds: stamp.split_whitespace().last()?.parse().ok()?,
            what: what.trim(),
        })
    }

    /// Whether it is an ioctl with this low half.
    fn asks(&self, low: u64) -> bool {
        let command = self.what.strip_prefix("sys_ioctl(").and_then(|fields| {
            let (_, command) = fields.split_once("cmd: ")?;
            let digits = command.split([',', ')']).next()?;
            u64::from_str_radix(digits.trim_start_matches("0x"), 16).ok()
        });
        command.is_some_and(|command| command & 0xffff == low)
    }

    /// By the names that Strait and QEMU give to the threads of CPUs.
    fn is_of_vcpu(&self) -> bool {
        self.thread.starts_with("vcpu") || self.thread.starts_with("CPU ")
    }

    fn is_answer_to(&self, other: &Line<'_>) -> bool {
        self.thread == other.thread && self.what.starts_with("sys_ioctl ->")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: nop
           <...>-70      [001] .....  99.000000: sched_process_exec: filename=/bin/bash pid=70 old_pid=70
           <...>-71      [001] .....  100.000000: sched_process_exec: filename=/lab/strait pid=71 old_pid=71
          strait-71      [001] .....  100.100000: sys_ioctl(fd: 5, cmd: ae01, arg: 0)
          strait-71      [001] .....  100.110000: sys_ioctl -> 0x6
          strait-71      [001] .....  100.120000: sys_ioctl(fd: 6, cmd: 3b6a, arg: 7ffc0)
          strait-71      [001] .....  100.180000: sys_ioctl -> 0x8
          strait-71      [001] .....  100.200000: sys_ioctl(fd: 7, cmd: 3b71, arg: 7ffc0)
           other-72      [000] .....  100.210000: sys_ioctl -> 0x0
          strait-71      [001] .....  100.500000: sys_ioctl -> 0x0
           vcpu0-73      [001] .....  100.750000: sys_ioctl(fd: 9, cmd: ae80, arg: 0)
";

    #[test]
    fn a_start_is_told_by_what_it_asks() {
        let moments = Moments::parse(TRACE).expect("a start");
        let phases = moments.phases(3.0, 4.0).map(|seconds| (seconds * 1000.0).round());
        assert_eq!(phases, [180.0, 320.0, 250.0, 2250.0, 1000.0]);
    }

    #[test]
    fn who_maps_first_has_opened_when_the_device_is_open() {
        let text = TRACE
            .replace("cmd: 3b6a", "cmd: was")
            .replace("cmd: 3b71", "cmd: 3b6a");
        let phases = Moments::parse(&text.replace("cmd: was", "cmd: 3b71"))
            .expect("a start")
            .phases(1.0, 1.0);
        assert!((phases[0] - 0.5).abs() < 1e-6 && phases[1] == 0.0, "{phases:?}");
    }

    #[test]
    fn memory_that_is_mapped_beside_the_guests_start_is_waited_for() {
        let beside = "\
           reach-74      [000] .....  100.800000: sys_ioctl(fd: 7, cmd: 3b71, arg: 7ffc0)
           vcpu0-73      [001] .....  100.900000: sys_ioctl -> 0x0
           reach-74      [000] .....  101.000000: sys_ioctl -> 0x0
           vcpu0-73      [001] .....  102.000000: sys_ioctl(fd: 7, cmd: 3b71, arg: 7ffc0)
           vcpu0-73      [001] .....  102.500000: sys_ioctl -> 0x0
";
        let ready = |trace: &str| Moments::parse(trace).expect("a start").dma_ready_s();
        assert!((ready(TRACE) - 0.5).abs() < 1e-6);
        assert!((ready(&(TRACE.to_owned() + beside)) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_guest_that_starts_while_memory_is_mapped_waits_for_it_until_then() {
        let text = TRACE.replace("100.500000: sys_ioctl -> 0x0", "100.800000: sys_ioctl -> 0x0");
        for text in [
            text.clone(),
            text.replace("100.800000: sys_ioctl", "100.800000: other"),
        ] {
            let phases = Moments::parse(&text).expect("a start").phases(1.0, 1.0);
            assert!((phases[1] - 0.57).abs() < 1e-6 && phases[2] == 0.0, "{phases:?}");
        }
    }

    #[test]
    fn a_start_without_mappings_has_no_time_for_them() {
        let text = TRACE.replace("3b71", "ae02");
        let moments =
            Moments::parse(&(text + "vcpu0-73 [001] ..... 100.9: sys_ioctl -> 0x0\n")).expect("a start");
        let phases = moments.phases(1.0, 1.0);
        assert!(phases[1] == 0.0 && (phases[2] - 0.57).abs() < 1e-6, "{phases:?}");
        assert!((moments.dma_ready_s() - 0.75).abs() < 1e-6);
    }

    #[test]
    fn what_never_ran_is_no_start() {
        assert_eq!(Moments::parse("# tracer: nop\n"), None);
    }
}

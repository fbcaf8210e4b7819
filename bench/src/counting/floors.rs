//! What a start and an interrupt take where nothing but the necessary is done, by `strait-floor`.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::phases::{Moments, StartTrace};
use super::sheet::{Sheet, less};
use crate::shell::Shell;

/// The program of the probes.
pub const PROGRAM: &str = "strait-floor";

const START: &str = "a launcher that opens the device, reads kernel and initrd, and enters a guest of one instruction \
     without CPUID, devices and interrupt controllers";
const OPEN: &str = "opening container, group and function, which resets it";

/// The probe's program on a host.
pub struct Probe<'a> {
    shell: &'a dyn Shell,
    /// The program, by its path or as PATH has it.
    program: String,
}

/// The guest that a probe starts nothing of, but its size and its files.
#[derive(Debug, Clone)]
pub struct Launch {
    /// RAM in MiB.
    pub memory_mib: u64,
    /// What is read into it.
    pub files: [String; 2],
    /// The function that is opened.
    pub device: String,
}

/// What a probe's start took.
#[derive(Debug, Clone, Copy)]
pub struct Launched {
    /// As the kernel noted it down.
    pub moments: Moments,
    /// For the device to be opened, in seconds.
    pub open_s: f64,
}

/// What probes took, a figure for each round.
#[derive(Debug, Default)]
pub struct Floors {
    /// Seconds to the first instruction.
    first_s: Vec<f64>,
    /// Seconds for the device to be opened.
    open_s: Vec<f64>,
    /// Microseconds of an interrupt from its eventfd to the guest's handler.
    interrupt_us: Vec<f64>,
}

/// Nanoseconds, as the probe tells them.
#[derive(Deserialize)]
struct Took {
    device: u64,
}

#[derive(Deserialize)]
struct Latency {
    interrupt: u64,
}

impl<'a> Probe<'a> {
    /// This program on this host.
    pub fn new(shell: &'a dyn Shell, program: &str) -> Self {
        Self {
            shell,
            program: program.to_owned(),
        }
    }

    /// A start, with `more` options of the probe's.
    ///
    /// # Errors
    /// When it fails, or the host's kernel notes nothing down.
    pub fn launch(&self, launch: &Launch, more: &str) -> Result<Launched> {
        let Launch {
            memory_mib,
            files: [first, second],
            device,
        } = launch;
        let trace = StartTrace::start(self.shell)?;
        let took: Took = self.ask(&format!(
            "launch --memory {memory_mib} --file '{first}' --file '{second}' --device {device} {more}"
        ))?;
        Ok(Launched {
            moments: trace.finish()?,
            open_s: took.device as f64 / 1e9,
        })
    }

    fn ask<T: for<'de> Deserialize<'de>>(&self, words: &str) -> Result<T> {
        let said = self.shell.sh(&format!("'{}' {words}", self.program))?;
        serde_json::from_str(&said).with_context(|| format!("{PROGRAM} says `{said}`"))
    }
}

impl Floors {
    /// Adds a round.
    ///
    /// # Errors
    /// When a probe fails.
    pub fn measure(&mut self, probe: &Probe<'_>, launch: &Launch) -> Result<()> {
        let launched = probe.launch(launch, "")?;
        let latency: Latency = probe.ask("interrupts")?;
        self.first_s.push(launched.moments.first_instruction_s());
        self.open_s.push(launched.open_s);
        self.interrupt_us.push(latency.interrupt as f64 / 1e3);
        Ok(())
    }

    /// Gives the metrics of a start their floors, and tells what an interrupt takes.
    pub(super) fn fill<R>(sheet: &mut Sheet<'_, R>, of: impl Fn(&R) -> &Floors) {
        sheet.floor("start.first", START, |runs| least(&of(runs).first_s));
        sheet.floor("start.wall.open", OPEN, |runs| least(&of(runs).open_s));
        let title = "an interrupt from its eventfd to the guest's handler, which no VMM takes part in";
        sheet.of_host(less("floor.interrupt", title, "us"), |runs| {
            of(runs).interrupt_us.clone()
        });
    }
}

/// The best of a probe's rounds.
pub fn least(rounds: &[f64]) -> Option<f64> {
    rounds.iter().copied().reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host on which the probe says this.
    struct Says(&'static str);

    impl Shell for Says {
        fn sh(&self, script: &str) -> Result<String> {
            assert_eq!(script, "'/opt/strait-floor' interrupts");
            Ok(self.0.to_owned())
        }
    }

    #[test]
    fn what_a_probe_says_is_read_or_told() {
        let ask = |says: &'static str| {
            let said: Result<Latency> = Probe::new(&Says(says), "/opt/strait-floor").ask("interrupts");
            said.map(|latency| latency.interrupt)
        };
        assert_eq!(ask("{\"interrupt\": 1500}").expect("a number"), 1500);
        let error = ask("no such thing").expect_err("no JSON");
        assert_eq!(error.to_string(), "strait-floor says `no such thing`");
        assert_eq!(least(&[2.0, 1.0, 3.0]), Some(1.0));
    }
}

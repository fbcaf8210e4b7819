//! The lab host by hand: a shell, or one script.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Console, Kind, LabHost, Logs, Machine, Share, build_strait};
use crate::supplies::Supplies;

/// Boots the lab host with its console on this terminal.
pub(crate) fn shell() -> Result<ExitCode> {
    let supplies = Supplies::prepare()?;
    let strait = build_strait()?;
    let share = Share::new(&supplies, Some(&strait), Kind::Whole)?;
    let _raw = RawTerminal::enter();
    let machine = Machine::start(&supplies, &share, Kind::Whole, &Console::Terminal)?;
    let status = machine.wait()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs one script and passes on its output and exit code.
pub(crate) fn run(script: &Path, limit_s: u64, kind: Kind, with_strait: bool) -> Result<ExitCode> {
    let script =
        fs::read_to_string(script).with_context(|| format!("Cannot read the script {}", script.display()))?;
    let supplies = Supplies::prepare()?;
    let logs = Logs::open()?;
    let strait = with_strait.then(build_strait).transpose()?;
    let host = LabHost::boot(&supplies, &logs, strait.as_deref(), kind)?;
    let finished = host.agent.exec(&script, Duration::from_secs(limit_s))?;
    print!("{}", finished.output);
    eprint!("{}", finished.errors);
    Ok(ExitCode::from(u8::try_from(finished.code).unwrap_or(u8::MAX)))
}

/// The terminal in raw mode, so that the lab host sees every key; restored on the way out.
struct RawTerminal {
    saved: Option<String>,
}

impl RawTerminal {
    fn enter() -> Self {
        let saved = stty(&["-g"]);
        if saved.is_some() {
            stty(&["raw", "-echo"]);
        }
        Self { saved }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            stty(&[saved.trim()]);
        }
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

//! gdb at a guest of a few instructions.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::gdb::{execute, says};
use super::{Lab, Scenario};
use crate::guest::gdb_session::{SOCKET, SYMBOLS, command};
use crate::guest::machine_code::{elf, octal};
use crate::guest::svm_code as code;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb-vmrun",
            "steps over VMRUN end where the outer guest goes on, again and again",
            300,
            vmrun,
        )
        .strait_only()
        .full(),
    ]
}

/// Starts a tiny guest that waits for gdb, and does `work`, by which the guest must end well. What that returns.
pub(super) fn with_tiny(
    lab: &Lab<'_>,
    program: &[u8],
    work: impl FnOnce() -> Result<String>,
) -> Result<String> {
    let image = octal(&elf(program));
    lab.agent.sh(&format!("rm -f {SOCKET}; printf '{image}' > /run/tiny"))?;
    lab.agent.sh(&format!(": > {SYMBOLS}"))?;
    let command = format!("strait run --kernel /run/tiny --memory 64M --gdb=unix:{SOCKET} -S");
    let words = command.split_whitespace().map(str::to_owned).collect();
    lab.agent.start("tiny", words)?;
    let said = wait_for_socket(lab).and_then(|()| work());
    if said.is_err() {
        lab.agent.signal("tiny", 15)?;
    }
    let left = lab.deadline.saturating_duration_since(Instant::now());
    let finished = lab.agent.wait("tiny", left)?;
    let console = lab.agent.sh("cat /run/lab/tiny.out")?;
    lab.log(&format!("{command}\ncode {}\n{console}\n{}", finished.code, finished.errors));
    let said = said?;
    ensure!(
        finished.code == 0 && console.ends_with('K'),
        "The guest ended with code {} and said {console:?}, expected 0 and K",
        finished.code
    );
    Ok(said)
}

fn wait_for_socket(lab: &Lab<'_>) -> Result<()> {
    let script = format!("for i in $(seq 600); do [ -S {SOCKET} ] && exit; sleep 0.1; done; exit 1");
    lab.agent.sh(&script).map(drop)
}

/// gdb prints `LABEL: VALUE` for each.
pub(super) fn shows(said: &str, values: &[(&str, u32)]) -> Result<()> {
    values
        .iter()
        .try_for_each(|(label, value)| says(said, &format!("{label}: {value}\n")))
}

/// A command of gdb's that prints `LABEL: VALUE`.
pub(super) fn print(label: &str, value: &str) -> String {
    format!("printf \"{label}: %d\\n\", {value}\n")
}

/// Steps at most: two rounds of the guest are fewer.
const STEPS: u32 = 100;

/// A step over VMRUN ends where the outer guest goes on, and so does the next one; each time its guest has left once.
fn vmrun(lab: &Lab<'_>) -> Result<()> {
    let count = format!("*(int *) {:#x}", code::COUNT);
    let to_vmrun = format!("while $rip != {:#x}\n  stepi\nend\n", code::vmrun_at());
    let script = [
        "set architecture i386:x86-64\n",
        &to_vmrun,
        &print("before", &count),
        "info threads\nstepi\n",
        &print("behind it", "$rip"),
        &format!("set $steps = 0\nwhile {count} < 2 && $steps < {STEPS}\n  stepi\n  set $steps = $steps + 1\nend\n"),
        &print("has been there", &count),
        &format!("set *(int *) {:#x} = 1\ncontinue\n", code::ENOUGH),
    ];
    let said = with_tiny(lab, &code::runs_again_and_again(), || execute(lab, &command(&script.concat())))?;
    let behind = code::vmrun_at() + code::VMRUN_LEN;
    shows(&said, &[("before", 0), ("behind it", behind), ("has been there", 2)])?;
    says(&said, "exited normally")
}

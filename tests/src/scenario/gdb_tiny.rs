//! gdb at a guest of a few instructions.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::gdb::{gdb_ends, marked, says, start_beside};
use super::{Lab, Scenario};
use crate::guest::gdb_session::{SOCKET, SYMBOLS, command};
use crate::guest::machine_code::{elf, octal};
use crate::guest::svm_code as code;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb-vmrun",
            "a step into a guest of the guest by VMRUN lasts until it is interrupted, and steps go on from there",
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

/// How long the guest is left to itself.
const WHILE: Duration = Duration::from_secs(2);

/// The step over VMRUN comes back when gdb is interrupted, as by Ctrl-C, wherever the guest is by then.
fn vmrun(lab: &Lab<'_>) -> Result<()> {
    let count = format!("*(int *) {:#x}", code::COUNT);
    let script = [
        "set architecture i386:x86-64\n",
        &format!("while $rip != {:#x}\n  stepi\nend\n", code::vmrun_at()),
        &print("before", &count),
        "info threads\nstepi\n",
        &print("has gone on", &format!("{count} > 3")),
        "set $steps = 0\nwhile $steps < 40\n  stepi\n  set $steps = $steps + 1\nend\n",
        "info threads\n",
        &format!("set *(int *) {:#x} = 1\ncontinue\n", code::ENOUGH),
    ];
    let script = marked(&script.concat(), "info threads");
    let said = with_tiny(lab, &code::runs_again_and_again(), || {
        start_beside(lab, &command(&script))?;
        sleep(WHILE);
        lab.agent.sh("pkill -INT -x gdb")?;
        gdb_ends(lab)
    })?;
    shows(&said, &[("before", 0), ("has gone on", 1)])?;
    says(&said, "Program received signal SIGINT")?;
    says(&said, "exited normally")
}

//! Outputs that nobody reads.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::machine_code;
use crate::lab::devices::NIC;

/// Runs the guest in /tmp/tiny with `$options` and its outputs at `$out` and `$errors`, where descriptor 3 is a
/// full pipe that nobody reads; asks strait what it does, ends it, and says how it ended. `$pace` stretches its limits.
const RUN: &str = r#"
rm -f /tmp/stuck /tmp/stats
mkfifo /tmp/stuck /tmp/stats
exec 3<> /tmp/stuck
head -c 65536 /dev/zero >&3
strait run --kernel /tmp/tiny --memory 64M $options < /dev/null > $out 2> $errors &
pid=$!
for try in $(seq $((100 * pace))); do
    grep -qs vcpu0 /proc/$pid/task/*/comm && break
    sleep 0.2
done
grep -qs vcpu0 /proc/$pid/task/*/comm || { echo "The guest has not started" >&2; kill -KILL $pid; exit 1; }
sleep 2
kill -USR1 $pid
sleep 1
kill -TERM $pid
for try in $(seq $((300 * pace))); do
    [ -e /proc/$pid ] || break
    sleep 0.1
done
kill -KILL $pid 2> /dev/null
wait $pid
"#;

/// Twenty seconds for the start, thirty for the end, and what emulation takes.
const LIMIT: Duration = Duration::from_secs(100);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "stuck-output",
            "a guest prints without end and nobody reads it: SIGTERM ends strait, and the NIC is free",
            150,
            |lab| {
                run(
                    lab,
                    "--viommu intel --stats /tmp/stats",
                    "/proc/self/fd/3",
                    "/proc/self/fd/2",
                )
            },
        )
        .strait_only(),
        Scenario::new(
            "stuck-errors",
            "nobody reads what strait has to say: SIGTERM ends it, and the NIC is free",
            150,
            |lab| run(lab, "-vv", "/proc/self/fd/1", "/proc/self/fd/3"),
        )
        .strait_only(),
    ]
}

fn run(lab: &Lab<'_>, options: &str, out: &str, errors: &str) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    let program = machine_code::elf(&[machine_code::SWEEP_CONFIG, machine_code::SAY_WITHOUT_END].concat());
    let script = format!(
        "printf '{}' > /tmp/tiny; options='{options} --device {nic}' out={out} errors={errors} pace={}\n{RUN}",
        machine_code::octal(&program),
        lab.host.pace.factor()
    );
    let finished = lab.agent.exec(&script, lab.host.pace.stretch(LIMIT))?;
    let said = finished.output.len();
    lab.log(&format!(
        "code {}, {said} bytes of output\n{}",
        finished.code, finished.errors
    ));
    ensure!(
        finished.code == 0,
        "It ended with code {}, expected 0: {}",
        finished.code,
        finished.errors
    );
    Ok(())
}

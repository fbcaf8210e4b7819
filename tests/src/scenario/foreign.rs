//! Kernels that are not Linux.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::Vmm;

/// Debian's memtest86+, which starts by Linux's boot protocol. It knows none of KVM's clocks, measures its CPU against
/// the interval timer and starts the other CPUs itself.
const MEMTEST: &str = "/boot/memtest86+x64.bin";

/// Until it has tested for three seconds of its own clock; its screen comes in parts of a line, with the cursor's
/// movements between them.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn scenarios() -> Vec<Scenario> {
    [1, 2]
        .map(|cpus| {
            let about = format!("memtest86+ tests RAM with {cpus} CPU(s), and its clock runs");
            Scenario::new(format!("memtest-{cpus}"), about, 180, move |lab| memtest(lab, cpus))
        })
        .into()
}

fn memtest(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    let vmm = match lab.vmm {
        Vmm::Strait => format!("strait run --cmdline console=ttyS0,115200 --memory 128M --cpus {cpus} --kernel"),
        Vmm::Qemu => format!(
            "qemu-system-x86_64 -nodefaults -display none -accel kvm -cpu host -m 128 -smp {cpus} -serial stdio \
             -append console=ttyS0,115200 -kernel"
        ),
    };
    let limit = lab.host.pace.stretch(LIMIT);
    let script = format!(
        "{vmm} {MEMTEST} < /dev/null > /tmp/screen & vmm=$!
        for i in $(seq {}); do
            sleep 1
            lines=$(sed 's/\\x1b\\[[0-9;?]*[A-Za-z]/\\n/g' /tmp/screen | grep -a -E '^(CPU|Using):' | tail -2)
            case $lines in *Time:*0:00:0[3-9]*|*Time:*0:00:[1-5]*) break ;; esac
        done
        kill $vmm; wait $vmm
        echo \"$lines\"",
        limit.as_secs()
    );
    let screen = lab.script_within(&script, limit * 2)?.output;
    let has = |words: &str| screen.contains(words);
    ensure!(has("Time:  0:00:"), "Its clock does not run within {} s: {screen}", limit.as_secs());
    ensure!(has(&format!("{cpus} Cores {cpus} Threads")), "It has not found {cpus} CPUs: {screen}");
    ensure!(has("Errors: 0 "), "It has found errors in RAM: {screen}");
    Ok(())
}

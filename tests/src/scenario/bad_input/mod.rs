//! Mistakes: each gets one clear line, its exit code, and changes nothing on the host.

mod mistakes;

use std::time::Duration;

use anyhow::{Result, ensure};

use mistakes::{COMMAND_LINE, DEVICES, HOST, IMAGES, Mistake, WITHOUT_IOMMU};
use super::{Kind, Lab, Scenario};

/// A refusal takes milliseconds; a guest that starts instead runs into this.
const LIMIT: Duration = Duration::from_secs(30);

/// What `timeout` answers in its program's place.
const TIMED_OUT: i32 = 124;

pub(super) fn scenarios() -> Vec<Scenario> {
    let usual = [COMMAND_LINE, IMAGES, DEVICES, HOST].concat();
    let mut scenarios: Vec<Scenario> = usual.into_iter().map(scenario).collect();
    scenarios.extend(
        WITHOUT_IOMMU
            .iter()
            .map(|mistake| scenario(*mistake).on(Kind::WithoutIommu)),
    );
    scenarios
}

fn scenario(mistake: Mistake) -> Scenario {
    Scenario::new(mistake.name, mistake.about, 90, move |lab| {
        check(lab, &mistake)
    })
    .strait_only()
}

fn check(lab: &Lab<'_>, mistake: &Mistake) -> Result<()> {
    let limit = lab.host.pace.stretch(LIMIT);
    let finished = lab.script_within(&script(mistake, limit), limit * 2)?;
    ensure!(
        finished.code != TIMED_OUT,
        "It was not refused: a guest ran until it was stopped"
    );
    let errors = finished.errors.trim_end();
    ensure!(
        mistake.codes.contains(&finished.code),
        "It ended with code {}, expected one of {:?}: {errors}",
        finished.code,
        mistake.codes
    );
    let lines = errors.lines().count();
    ensure!(lines == 1, "It said {lines} lines instead of one: {errors}");
    ensure!(
        errors.starts_with("strait: "),
        "It does not say who speaks: {errors}"
    );
    for words in mistake.words {
        ensure!(says_one_of(errors, words), "It does not say `{words}`: {errors}");
    }
    Ok(())
}

/// The preparation's own noise is kept away from the error output under test.
fn script(mistake: &Mistake, limit: Duration) -> String {
    let Mistake {
        prepare, run, undo, ..
    } = mistake;
    format!(
        "K='--kernel /lab/guest/vmlinuz-6.12'; I='--initrd /lab/guest/initramfs-6.12'; NIC=0000:01:00.0\n\
         bind() {{ cd /sys/bus/pci/devices/$1; echo $1 > driver/unbind; echo vfio-pci > driver_override; \
         echo $1 > /sys/bus/pci/drivers_probe; cd /tmp; }}\n\
         restore() {{ cd /sys/bus/pci/devices/$1; echo $1 > driver/unbind; echo > driver_override; \
         echo $1 > /sys/bus/pci/drivers_probe; cd /tmp; }}\n\
         unload_kvm() {{ idle=$(cat /run/lab/idle-vm); kill $idle; tail -s 0.1 --pid $idle -f /dev/null; \
         rmmod kvm_amd; }}\n\
         load_kvm() {{ modprobe kvm_amd; setsid lab idle-vm & echo $! > /run/lab/idle-vm; }}\n\
         cd /tmp\n\
         {{ {prepare}\n}} > /tmp/prepare.log 2>&1\n\
         timeout {} {run} < /dev/null\n\
         code=$?\n\
         {{ {undo}\n}} > /tmp/undo.log 2>&1\n\
         exit $code",
        limit.as_secs()
    )
}

/// `words` holds alternatives between bars; case does not matter.
fn says_one_of(text: &str, words: &str) -> bool {
    let text = text.to_lowercase();
    words.split('|').any(|word| text.contains(&word.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_alternative_counts_and_case_does_not() {
        assert!(says_one_of("Cannot lock memory", "memlock|LOCK MEMORY"));
        assert!(!says_one_of("Cannot lock memory", "igb|nvme"));
    }
}

//! What a guest's kernel says came too late. Data may arrive all the same, polled for or sent again, while an
//! interrupt that was lost cost a minute.

use anyhow::{Result, bail};

/// Said of a slow or busy machine, or where nothing is lost; each with the reason.
const HARMLESS: [(&str, &str); 3] = [
    ("rcu", "an emulated CPU on a busy machine is held up"),
    ("clocksource", "an emulated CPU on a busy machine misses ticks"),
    (
        "FW provided TM TaskAbort/Reset timeout",
        "megaraid_sas says at each probe which limits its controller names",
    ),
];

/// A guest whose drivers waited in vain has failed, whatever else it did. Guests print such messages at their end,
/// those of the guest's own guest too (`leave` in resources/lab/guest-init.sh).
pub(crate) fn judge<T>(result: Result<T>, console: &str) -> Result<T> {
    let Some(line) = lost(console) else {
        return result;
    };
    let said = format!("The guest's kernel waited in vain: {line}");
    match result {
        Ok(_) => bail!(said),
        Err(error) => Err(error.context(said)),
    }
}

fn lost(console: &str) -> Option<&str> {
    let mut said = console.lines().filter_map(|line| line.strip_prefix("LAB late "));
    let is_harmless = |line: &str| HARMLESS.iter().any(|(words, _reason)| line.contains(words));
    said.find(|line| !is_harmless(line) && !is_frame(line))
}

/// A line of a stack, whose functions may be called `schedule_timeout`: what the stack is of is said before it.
fn is_frame(line: &str) -> bool {
    line.split_once("+0x")
        .is_some_and(|(_, place)| place.contains("/0x"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_polled_is_a_failure() {
        let line = "[   66.1] nvme nvme0: I/O tag 12 (100c) QID 0 timeout, completion polled";
        let console = format!("LAB done 0\nLAB late {line}\n");
        let refusal = judge(Ok(()), &console).expect_err("a lost interrupt").to_string();
        assert!(refusal.contains("QID 0 timeout"), "{refusal}");
    }

    #[test]
    fn a_slow_machine_is_none() {
        let console = "LAB late [   66.1] rcu: INFO: rcu_sched self-detected stall on CPU\nLAB end\n";
        assert!(judge(Ok(()), console).is_ok());
    }

    #[test]
    fn the_stack_of_a_slow_machine_is_none() {
        let stack = "LAB late [   63.8]  schedule_timeout+0x9e/0x160\n\
                     LAB late [   63.8]  ? __pfx_process_timeout+0x10/0x10\n";
        assert!(judge(Ok(()), &format!("{stack}LAB end\n")).is_ok());
        let lost = format!("{stack}LAB late [   66.1] nvme nvme0: I/O tag 12 (100c) QID 0 timeout\n");
        assert!(judge(Ok(()), &lost).is_err());
    }

    #[test]
    fn a_limit_that_is_named_is_none() {
        let limit = "megaraid_sas 0000:03:00.0: FW provided TM TaskAbort/Reset timeout\t: 0 secs/0 secs";
        assert!(judge(Ok(()), &format!("LAB late [   48.4] {limit}\nLAB end\n")).is_ok());
    }

    #[test]
    fn what_a_program_prints_is_not_the_kernels_word() {
        assert!(judge(Ok(()), "wget: download timed out\nLAB end\n").is_ok());
    }
}

//! A guest that runs in the lab host, seen through its console.

mod late;
pub(crate) mod machine_code;
mod vmm;

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

pub(crate) use late::judge;
pub(crate) use vmm::{GuestConfig, Vmm};

use crate::agent::Agent;
use crate::agent::protocol::Finished;

/// One output request waits this long at most, so that deadlines are noticed.
const SLICE: Duration = Duration::from_secs(2);

/// How long a killed VMM may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(180);

/// How much of a VMM's error output is kept, from its end, in bytes: QEMU has a line for each map that the host
/// refuses.
const ERRORS_KEPT: u32 = 1 << 20;

/// What stands before the markers of a guest's own guest, see resources/lab/nested.sh.
pub(crate) const INNER: &str = "l2-";

/// How a kernel that gives up says so.
const PANIC: &str = "Kernel panic - not syncing";

/// Numbers the files of guests in the lab host.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Threads, interrupts and KVM's counters of the process `$pid`; command and status of passed functions.
const PICTURE: &str = r#"
[ -e /proc/$pid/task ] || exit 0
for look in first second; do
    echo "--- $look look ---"
    for task in /proc/$pid/task/*; do
        echo "$(cat $task/comm): $(cat $task/wchan), state and ticks $(cut -d ' ' -f 3,14,15 $task/stat)"
    done
    grep vfio /proc/interrupts
    for device in /sys/bus/pci/drivers/vfio-pci/0*; do
        echo "${device##*/} command and status $(od -A n -t x2 -j 4 -N 4 $device/config)"
    done
    for counter in exits io_exits mmio_exits halt_exits irq_exits irq_injections; do
        echo "$counter $(cat /sys/kernel/debug/kvm/$pid-*/$counter)"
    done
    sleep 1
done 2> /dev/null
true
"#;

/// A running VMM and its guest. Dropping it kills it.
pub(crate) struct Guest<'a> {
    agent: &'a Agent,
    name: String,
    /// The process id in the lab host.
    pub(crate) pid: u32,
    console: String,
    /// Up to where the console was read in the lab host.
    position: u64,
    /// Up to where markers were looked at.
    looked: usize,
    /// Up to where a panic was expected.
    forgiven: usize,
    deadline: Instant,
    live: bool,
    ended: Cell<bool>,
}

impl<'a> Guest<'a> {
    /// Starts a VMM. Everything about this guest must happen before `deadline`.
    pub(crate) fn start(
        agent: &'a Agent,
        command: Vec<String>,
        deadline: Instant,
        live: bool,
    ) -> Result<Self> {
        let name = format!("guest{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let pid = agent.start(&name, command)?;
        Ok(Self {
            agent,
            name,
            pid,
            console: String::new(),
            position: 0,
            looked: 0,
            forgiven: 0,
            deadline,
            live,
            ended: Cell::new(false),
        })
    }

    /// Waits for the marker line `LAB word ...` and returns what follows the word. Markers before
    /// it are passed over.
    pub(crate) fn expect(&mut self, word: &str) -> Result<String> {
        loop {
            while let Some((marker, rest)) = self.next_marker() {
                if marker == word {
                    return Ok(rest);
                }
                if marker == "fail" {
                    bail!("The guest says: {rest}");
                }
            }
            if self.panic().is_some() {
                bail!("The guest's kernel panicked while the harness waited for `{word}`");
            }
            if !self.read_more(&format!("the guest's `{word}`"))? {
                let finished = self.wait()?;
                bail!(
                    "The VMM ended (code {}) before the guest's `{word}`: {}",
                    finished.code,
                    crate::supplies::command::last_line(&finished.errors)
                );
            }
        }
    }

    /// Waits until the guest's kernel panics. [`Self::expect`] takes no offence at that panic afterwards.
    pub(crate) fn expect_panic(&mut self) -> Result<()> {
        loop {
            if let Some(at) = self.panic() {
                self.forgiven = at + PANIC.len();
                return Ok(());
            }
            ensure!(
                self.read_more("the panic of the guest's kernel")?,
                "The VMM ended before the guest's kernel panicked"
            );
        }
    }

    /// Where in the console a panic is that nobody waited for.
    fn panic(&self) -> Option<usize> {
        let at = self.console[self.forgiven..].find(PANIC)?;
        Some(self.forgiven + at)
    }

    /// The interrupt lines that the guest's `irqs` step prints: vector name, count on each CPU.
    pub(crate) fn expect_irqs(&mut self) -> Result<Vec<(String, Vec<u64>)>> {
        self.expect_irqs_of("")
    }

    /// The same of a guest whose markers begin with `prefix`: [`INNER`] for the guest's own guest.
    pub(crate) fn expect_irqs_of(&mut self, prefix: &str) -> Result<Vec<(String, Vec<u64>)>> {
        let from = self.looked;
        self.expect(&format!("{prefix}irqs"))?;
        let start = format!("LAB {prefix}irq ");
        let lines = self.console[from..self.looked].lines();
        Ok(lines
            .filter_map(|line| parse_irq(line.strip_prefix(start.as_str())?))
            .collect())
    }

    /// What follows the marker `word` in each of its lines, up to the one that says `end`.
    pub(crate) fn expect_list(&mut self, word: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.expect(word)? {
                end if end == "end" => return Ok(lines),
                line => lines.push(line.trim().to_owned()),
            }
        }
    }

    /// What follows each of some markers, which may come in any order.
    pub(crate) fn expect_each<const N: usize>(&mut self, words: &[String; N]) -> Result<[String; N]> {
        let (from, mut last) = (self.looked, self.looked);
        let mut found = [const { String::new() }; N];
        for (found, word) in found.iter_mut().zip(words) {
            self.looked = from;
            *found = self.expect(word)?;
            last = last.max(self.looked);
        }
        self.looked = last;
        Ok(found)
    }

    /// Types a line on the guest's console.
    pub(crate) fn type_line(&self, line: &str) -> Result<()> {
        self.agent.input(&self.name, &format!("{line}\n"))
    }

    /// Closes the VMM's input.
    pub(crate) fn close_input(&self) -> Result<()> {
        self.agent.close_input(&self.name)
    }

    /// Waits for the VMM's own end.
    pub(crate) fn wait(&mut self) -> Result<Finished> {
        while self.read_more("the VMM's end")? {}
        let finished = self.agent.wait(&self.name, KILL_LIMIT)?;
        self.ended.set(true);
        Ok(finished)
    }

    /// Waits for an end with exit code 0.
    pub(crate) fn expect_power_off(&mut self) -> Result<Finished> {
        self.expect_end(0)
    }

    /// Waits for an end with the given exit code.
    pub(crate) fn expect_end(&mut self, code: i32) -> Result<Finished> {
        let finished = self.wait()?;
        if finished.code != code {
            let said = crate::supplies::command::last_line(&finished.errors);
            bail!(
                "The VMM ended with code {}, expected {code}: {said}",
                finished.code
            );
        }
        Ok(finished)
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.agent.signal(&self.name, 9)?;
        self.agent.wait(&self.name, KILL_LIMIT)?;
        self.ended.set(true);
        Ok(())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        self.agent.signal(&self.name, signal)
    }

    /// The console and the end of the VMM's error output so far, for the log.
    pub(crate) fn transcript(&mut self) -> String {
        let _ = self.take_output(Duration::ZERO);
        let errors = self
            .agent
            .sh(&format!("tail -c {ERRORS_KEPT} /run/lab/{}.err", self.name))
            .unwrap_or_default();
        format!("{}\n--- standard error ---\n{errors}", self.console)
    }

    /// The console so far.
    pub(crate) fn console(&self) -> &str {
        &self.console
    }

    /// What the VMM and its devices are at, for the log of a guest that stands still: two looks, a second
    /// apart. Empty if the VMM has ended.
    pub(crate) fn picture(&self) -> String {
        let script = format!("pid={}\n{PICTURE}", self.pid);
        self.agent.sh(&script).unwrap_or_default()
    }

    /// False at the end of the output.
    fn read_more(&mut self, awaited: &str) -> Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("Time is up while the harness waited for {awaited}");
        }
        self.take_output(left.min(SLICE))
    }

    fn take_output(&mut self, wait: Duration) -> Result<bool> {
        let (text, next, running) = self.agent.output(&self.name, self.position, wait)?;
        if self.live {
            let mut terminal = std::io::stdout();
            let _ = terminal
                .write_all(text.as_bytes())
                .and_then(|()| terminal.flush());
        }
        let new = next > self.position;
        self.position = next;
        self.console += &text.replace('\r', "");
        Ok(running || new)
    }

    /// The next complete line that begins with `LAB `.
    fn next_marker(&mut self) -> Option<(String, String)> {
        loop {
            let rest = &self.console[self.looked..];
            let length = rest.find('\n')?;
            let line = &rest[..length];
            self.looked += length + 1;
            if let Some(marker) = line.strip_prefix("LAB ") {
                let (word, rest) = marker.split_once(' ').unwrap_or((marker, ""));
                return Some((word.to_owned(), rest.to_owned()));
            }
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if !self.ended.get() {
            let _ = self.kill();
        }
    }
}

/// `eth0-rx-0 12 0`
fn parse_irq(line: &str) -> Option<(String, Vec<u64>)> {
    let (name, counts) = line.split_once(' ')?;
    let counts = counts
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    Some((name.to_owned(), counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irq_line_has_a_name_and_a_count_per_cpu() {
        let parsed = parse_irq("eth0-TxRx-0 17 0");
        assert_eq!(parsed, Some(("eth0-TxRx-0".to_owned(), vec![17, 0])));
        assert_eq!(parse_irq("eth0 IR-PCI"), None);
    }
}

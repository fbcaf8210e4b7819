//! A running VMM and its guest, which is typed at.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::console::Console;
use crate::agent::Agent;
use crate::agent::protocol::Finished;
use crate::supplies::command::last_line;

/// One output request waits this long at most, so that deadlines are noticed.
const SLICE: Duration = Duration::from_secs(2);

/// How long a killed VMM may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(180);

/// How long a guest that failed may take to say what its kernel last said.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(30);

/// How much of a VMM's error output is kept, from its end, in bytes: QEMU has a line for each map that the host
/// refuses.
const ERRORS_KEPT: u32 = 1 << 20;

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
    console: Console,
    /// Up to where the console was fetched from the lab host.
    position: u64,
    deadline: Instant,
    is_shown: bool,
    has_ended: Cell<bool>,
}

impl<'a> Guest<'a> {
    /// Starts a VMM. Everything about this guest must happen before `deadline`.
    pub(crate) fn start(
        agent: &'a Agent,
        command: Vec<String>,
        deadline: Instant,
        is_shown: bool,
    ) -> Result<Self> {
        let name = format!("guest{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let pid = agent.start(&name, command)?;
        Ok(Self {
            agent,
            name,
            pid,
            console: Console::default(),
            position: 0,
            deadline,
            is_shown,
            has_ended: Cell::new(false),
        })
    }

    /// Waits until the guest takes commands. Returns how long its kernel has run, in seconds.
    pub(crate) fn ready(&mut self) -> Result<f64> {
        let (_, uptime) = self.marker("ready", "the guest's first program")?;
        uptime.parse().context("The guest's uptime is no number")
    }

    /// Types a shell script, which must succeed, and returns what it prints.
    pub(crate) fn sh(&mut self, script: &str) -> Result<String> {
        self.type_script(script)?;
        self.answer(script)
    }

    /// Types a shell script and does not wait for it.
    pub(crate) fn type_script(&mut self, script: &str) -> Result<()> {
        self.console.skip();
        self.type_text(&format!("{}\n.\n", script.trim()))
    }

    /// Waits for the end of a script that was typed before; it must succeed. Returns what it printed and was not
    /// read yet.
    pub(crate) fn answer(&mut self, script: &str) -> Result<String> {
        let (printed, status) = self.end_of(script)?;
        ensure!(
            status == 0,
            "`{}` ended with code {status} in the guest: {}",
            summary(script),
            last_line(&printed)
        );
        Ok(printed)
    }

    /// Waits for the end of a script that was typed before, however it ends. Returns what it printed and its exit
    /// code.
    pub(crate) fn end_of(&mut self, script: &str) -> Result<(String, i32)> {
        let (printed, status) = self.marker("done", &format!("the guest's `{}`", summary(script)))?;
        Ok((printed, status.parse().context("An exit code is no number")?))
    }

    /// Types a command that starts a guest of the guest, and waits until that one takes commands: from here on
    /// it is typed at, until it leaves.
    pub(crate) fn enter(&mut self, command: &str) -> Result<()> {
        self.type_script(command)?;
        self.wait_for(
            |console| {
                if console.read_marker("ready").is_some() {
                    return Some(Ok(()));
                }
                let (printed, status) = console.read_marker("done")?;
                let said = last_line(&printed);
                Some(Err(anyhow::anyhow!(
                    "The inner VMM ended with code {status} before its guest was up: {said}"
                )))
            },
            "the inner guest",
        )?
    }

    /// Powers the guest of the guest off, whose VMM must end with code 0.
    pub(crate) fn leave(&mut self) -> Result<()> {
        self.type_script("leave poweroff")?;
        self.answer("the inner VMM").map(drop)
    }

    /// Waits for a line with these words on the console, and returns it.
    pub(crate) fn line_with(&mut self, words: &str) -> Result<String> {
        self.wait_for(|console| console.read_line_with(words), &format!("`{words}`"))
    }

    /// Waits until the guest's kernel panics, to which nobody takes offence from then on.
    pub(crate) fn expect_panic(&mut self) -> Result<()> {
        while !self.console.forgive_panic() {
            ensure!(
                self.read_more("the panic of the guest's kernel")?,
                "The VMM ended before the guest's kernel panicked"
            );
        }
        Ok(())
    }

    /// Types text, as it is.
    pub(crate) fn type_text(&self, text: &str) -> Result<()> {
        self.agent.input(&self.name, text)
    }

    /// Closes the VMM's input.
    pub(crate) fn close_input(&self) -> Result<()> {
        self.agent.close_input(&self.name)
    }

    /// Powers the guest off, and waits for an end of its VMM with code 0.
    pub(crate) fn power_off(&mut self) -> Result<Finished> {
        self.type_script("leave poweroff")?;
        self.expect_end(0)
    }

    /// Reboots the guest, and waits until it takes commands again.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        self.type_script("leave reboot")?;
        self.ready().context("The guest did not come back")?;
        Ok(())
    }

    /// Waits for an end of the VMM with this code.
    pub(crate) fn expect_end(&mut self, code: i32) -> Result<Finished> {
        let finished = self.wait()?;
        ensure!(
            finished.code == code,
            "The VMM ended with code {}, expected {code}: {}",
            finished.code,
            last_line(&finished.errors)
        );
        Ok(finished)
    }

    /// Waits for the VMM's own end.
    pub(crate) fn wait(&mut self) -> Result<Finished> {
        while self.read_more("the VMM's end")? {}
        let finished = self.agent.wait(&self.name, KILL_LIMIT)?;
        self.has_ended.set(true);
        Ok(finished)
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.agent.signal(&self.name, 9)?;
        self.agent.wait(&self.name, KILL_LIMIT)?;
        self.has_ended.set(true);
        Ok(())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        self.agent.signal(&self.name, signal)
    }

    /// The console so far.
    pub(crate) fn console(&self) -> &str {
        self.console.text()
    }

    /// The console and the end of the VMM's error output so far, for the log.
    pub(crate) fn transcript(&mut self) -> String {
        let _ = self.take_output(Duration::ZERO);
        format!(
            "{}\n--- standard error ---\n{}",
            self.console.text(),
            self.errors()
        )
    }

    /// The end of the VMM's error output so far.
    pub(crate) fn errors(&self) -> String {
        let tail = format!("tail -c {ERRORS_KEPT} /run/lab/{}.err", self.name);
        self.agent.sh(&tail).unwrap_or_default()
    }

    /// Of a guest that failed, and can perhaps still say it: the last words of its kernel go to the console.
    pub(crate) fn ask_for_last_words(&mut self) {
        if self.has_ended.get() {
            return;
        }
        self.deadline = Instant::now() + LAST_WORDS_LIMIT;
        let script = "dmesg | tail -n 25; leave poweroff";
        let _ = self.type_script(script).and_then(|()| self.wait());
    }

    /// What the VMM and its devices are at, for the log of a guest that stands still: two looks, a second
    /// apart. Empty if the VMM has ended.
    pub(crate) fn picture(&self) -> String {
        let script = format!("pid={}\n{PICTURE}", self.pid);
        self.agent.sh(&script).unwrap_or_default()
    }

    fn marker(&mut self, word: &str, awaited: &str) -> Result<(String, String)> {
        self.wait_for(|console| console.read_marker(word), awaited)
    }

    /// Waits until the console has what is looked for.
    fn wait_for<T>(&mut self, find: impl Fn(&mut Console) -> Option<T>, awaited: &str) -> Result<T> {
        loop {
            if let Some(found) = find(&mut self.console) {
                return Ok(found);
            }
            if self.console.panic().is_some() {
                bail!("The guest's kernel panicked while the harness waited for {awaited}");
            }
            if !self.read_more(awaited)? {
                let finished = self.wait()?;
                bail!(
                    "The VMM ended (code {}) while the harness waited for {awaited}: {}",
                    finished.code,
                    last_line(&finished.errors)
                );
            }
        }
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
        if self.is_shown {
            let mut terminal = std::io::stdout();
            let _ = terminal
                .write_all(text.as_bytes())
                .and_then(|()| terminal.flush());
        }
        let is_new = next > self.position;
        self.position = next;
        self.console.add(&text);
        Ok(running || is_new)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if !self.has_ended.get() {
            let _ = self.kill();
        }
    }
}

/// The first line of a script, for messages.
fn summary(script: &str) -> &str {
    script.trim().lines().next().unwrap_or_default()
}

//! One guest, from its VMM's start to its end.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often an end, a limit and a signal are looked for while nothing is said.
const LOOK: Duration = Duration::from_millis(50);

/// What of a console is kept.
const KEPT_BYTES: usize = 1 << 16;

/// How a guest went.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Start of the VMM to its end, in seconds.
    pub(super) wall_s: f64,
    /// Start of the VMM to the guest's first program, in seconds.
    pub(super) ready_s: f64,
    /// The guest's uptime then, in seconds.
    pub(super) init_s: f64,
    /// Parts of its work by their names: the numbers that it told, or why there are none.
    pub(super) parts: Vec<(String, Result<Vec<f64>, String>)>,
}

/// Where a guest is, for who looks at its VMM then.
#[derive(Debug, PartialEq)]
pub(super) enum Moment<'a> {
    /// It does nothing until this is over.
    Waits,
    /// It began this part of its work, which goes on meanwhile.
    Works(&'a str),
}

/// Why there is no figure of a guest.
#[derive(Debug, PartialEq)]
pub(super) enum Trouble {
    /// The user wants to end.
    Interrupted,
    /// The VMM or its guest failed.
    Failed(String),
}

/// Runs a VMM to its end, and calls `looks` with its process where there is something to be looked at.
pub(super) fn run(
    words: &[String],
    limit: Duration,
    interrupted: &AtomicBool,
    mut looks: impl FnMut(Moment<'_>, u32),
) -> Result<Ended, Trouble> {
    let failed = |what: &str, error: io::Error| Trouble::Failed(format!("{what}: {error}"));
    let errors = tempfile::tempfile().map_err(|error| failed("no file for its messages", error))?;
    let copy = errors
        .try_clone()
        .map_err(|error| failed("no file for its messages", error))?;
    let start = Instant::now();
    // In a group of its own: what ends this program at a terminal must not end it first.
    let child = Command::new(&words[0])
        .args(&words[1..])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(copy)
        .spawn()
        .map_err(|error| failed("cannot be started", error))?;
    let mut vmm = Vmm {
        child,
        deadline: start + limit,
        limit,
        interrupted,
    };
    let mut ended = Ended::default();
    let mut driver = None;
    let mut console = Console::new(vmm.child.stdout.take());
    while let Some(line) = console.line(&vmm)? {
        match line
            .trim()
            .split_once("BENCH ")
            .map(|(_, said)| said.split_once(' ').unwrap_or((said, "")))
        {
            Some(("init", uptime)) => {
                ended.ready_s = start.elapsed().as_secs_f64();
                ended.init_s = uptime.parse().unwrap_or(f64::NAN);
            }
            Some(("driver", name)) => driver = Some(name.to_owned()),
            Some(("waits", _)) => {
                looks(Moment::Waits, vmm.child.id());
                vmm.type_line()
                    .map_err(|error| failed("does not take what is typed", error))?;
            }
            Some(("begins", part)) => looks(Moment::Works(part), vmm.child.id()),
            Some((verdict @ ("did" | "failed"), told)) => ended.parts.extend(outcome(verdict, told)),
            _ => {}
        }
    }
    let code = vmm.wait()?;
    ended.wall_s = start.elapsed().as_secs_f64();
    if code != "exit code 0" {
        return Err(Trouble::Failed(format!(
            "ended with {code}: {}",
            last_words(errors)
        )));
    }
    match driver.as_deref() {
        None if ended.ready_s == 0.0 => Err(Trouble::Failed("its guest never ran a program".to_owned())),
        None | Some("") => Err(Trouble::Failed(
            "its guest found no driver for the device".to_owned(),
        )),
        Some(_) => Ok(ended),
    }
}

/// A part's name, then its numbers or why there are none. Numbers that are none are left to who wants them.
fn outcome(verdict: &str, told: &str) -> Option<(String, Result<Vec<f64>, String>)> {
    let (name, rest) = told.split_once(' ').unwrap_or((told, ""));
    let said = match verdict {
        "did" => Ok(rest.split(' ').filter_map(|word| word.parse().ok()).collect()),
        _ => Err(rest.replace(char::is_control, " ")),
    };
    (!name.is_empty()).then(|| (name.to_owned(), said))
}

/// The last line that a VMM said.
fn last_words(mut errors: std::fs::File) -> String {
    use std::io::Seek;

    let mut text = Vec::new();
    let read = errors
        .rewind()
        .and_then(|()| errors.take(1 << 20).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    match (read, last) {
        (Ok(_), Some(line)) => line.trim().replace(char::is_control, " "),
        _ => "it said nothing".to_owned(),
    }
}

/// A process that is ended with this value, and everything that it started.
struct Vmm<'a> {
    child: Child,
    deadline: Instant,
    limit: Duration,
    interrupted: &'a AtomicBool,
}

impl Vmm<'_> {
    /// Whether to go on waiting for it.
    fn check(&self) -> Result<(), Trouble> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Trouble::Interrupted);
        }
        if Instant::now() >= self.deadline {
            let seconds = self.limit.as_secs();
            return Err(Trouble::Failed(format!("did not come to its end in {seconds} s")));
        }
        Ok(())
    }

    fn type_line(&mut self) -> io::Result<()> {
        self.child
            .stdin
            .as_mut()
            .map_or(Ok(()), |console| console.write_all(b"\n"))
    }

    fn wait(&mut self) -> Result<String, Trouble> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return Ok(match (status.code(), status.signal()) {
                        (Some(code), _) => format!("exit code {code}"),
                        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
                    });
                }
                Ok(None) => self.check()?,
                Err(error) => return Err(Trouble::Failed(format!("cannot be waited for: {error}"))),
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Vmm<'_> {
    fn drop(&mut self) {
        if let (Ok(None), Some(group)) = (
            self.child.try_wait(),
            Pid::from_raw(self.child.id().cast_signed()),
        ) {
            // It may have ended since.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What a guest says.
struct Console {
    pipe: Option<ChildStdout>,
    text: Vec<u8>,
}

impl Console {
    fn new(pipe: Option<ChildStdout>) -> Self {
        Self {
            pipe,
            text: Vec::new(),
        }
    }

    /// The next whole line, or nothing at the end.
    fn line(&mut self, vmm: &Vmm<'_>) -> Result<Option<String>, Trouble> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            vmm.check()?;
            let Some(pipe) = &mut self.pipe else {
                return Ok(None);
            };
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(LOOK.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&*pipe, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                _ => {}
            }
            let mut bytes = [0; 4096];
            match pipe.read(&mut bytes) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.text.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::Failed(format!("its console cannot be read: {error}"))),
            }
            // A line without an end is none that is waited for.
            if self.text.len() > KEPT_BYTES {
                self.text.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn shell(script: &str, limit: Duration) -> Result<Ended, Trouble> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, limit, &AtomicBool::new(false), |_, _| {})
    }

    fn why(script: &str, limit: Duration) -> String {
        match shell(script, limit) {
            Err(Trouble::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_guest_that_drives_its_device_is_timed() {
        let ended = shell("echo noise; echo BENCH init 1.25; echo BENCH driver igb", LONG).expect("an end");
        assert!(
            ended.init_s == 1.25 && ended.ready_s > 0.0 && ended.wall_s >= ended.ready_s,
            "{ended:?}"
        );
    }

    #[test]
    fn a_guest_that_waits_is_looked_at_and_goes_on() {
        let words = [
            "/bin/sh",
            "-c",
            "echo BENCH init 1; echo BENCH driver x; echo BENCH waits; read -r _",
        ];
        let mut looked = 0;
        let ended = run(
            &words.map(str::to_owned),
            LONG,
            &AtomicBool::new(false),
            |moment, _| {
                assert_eq!(moment, Moment::Waits);
                looked += 1;
            },
        );
        assert!(ended.is_ok() && looked == 1, "{ended:?}");
    }

    #[test]
    fn the_parts_of_a_guests_work_are_told_with_numbers_or_reasons() {
        let script = "echo BENCH init 1; echo BENCH driver x; echo BENCH begins sent; echo BENCH did sent 345.5 70; \
                      echo BENCH failed answer nobody there; echo BENCH did odd x";
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let mut begun = Vec::new();
        let ended = run(&words, LONG, &AtomicBool::new(false), |moment, _| {
            if let Moment::Works(part) = moment {
                begun.push(part.to_owned());
            }
        });
        assert_eq!(begun, ["sent"]);
        let expected = [
            ("sent", Ok(vec![345.5, 70.0])),
            ("answer", Err("nobody there".to_owned())),
            ("odd", Ok(Vec::new())),
        ];
        assert_eq!(
            ended.expect("an end").parts,
            expected.map(|(name, said)| (name.to_owned(), said))
        );
    }

    #[test]
    fn a_vmm_that_crashes_hangs_or_is_not_there_says_so() {
        assert_eq!(
            why("echo no room >&2; exit 3", LONG),
            "ended with exit code 3: no room"
        );
        assert_eq!(
            why("kill -SEGV $$", LONG),
            "ended with signal 11: it said nothing"
        );
        assert_eq!(
            why("sleep 1000", Duration::ZERO),
            "did not come to its end in 0 s"
        );
        assert_eq!(
            why("exec >&-; sleep 1000", Duration::from_millis(200)),
            "did not come to its end in 0 s"
        );
        let absent = run(&["/nowhere".to_owned()], LONG, &AtomicBool::new(false), |_, _| {});
        assert!(matches!(absent, Err(Trouble::Failed(why)) if why.starts_with("cannot be started")));
    }

    #[test]
    fn a_guest_without_the_device_has_no_figure() {
        assert_eq!(
            why("echo BENCH init 1; echo BENCH driver", LONG),
            "its guest found no driver for the device"
        );
        assert_eq!(why("true", LONG), "its guest never ran a program");
    }

    #[test]
    fn whoever_interrupts_ends_the_guest_too() {
        let words = ["/bin/sh", "-c", "sleep 1000"].map(str::to_owned);
        assert_eq!(
            run(&words, LONG, &AtomicBool::new(true), |_, _| {}).err(),
            Some(Trouble::Interrupted)
        );
    }
}

//! Programs that the agent runs in the lab host.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::protocol::Finished;

/// A memory file system: what a guest prints must not wait for a disk or the harness.
const FOLDER: &str = "/run/lab";

/// How often a program's output file is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs a shell script to its end or its time limit.
pub(crate) fn exec(script: &str, limit: Duration) -> Result<Finished> {
    let start = Instant::now();
    let mut child = Command::new("/bin/bash")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("Cannot start a shell")?;
    let output = drain(child.stdout.take());
    let errors = drain(child.stderr.take());
    let status = wait_until(&mut child, start + limit)?;
    let Some(status) = status else {
        let _ = kill_process_group(pid_of(child.id())?, Signal::KILL);
        let _ = child.wait();
        bail!("A command in the lab host took longer than {} s", limit.as_secs());
    };
    let text = |thread: thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Finished {
        code: code_of(status),
        output: text(output),
        errors: text(errors),
        elapsed_ms: millis(start),
    })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    // Short at first: most commands take milliseconds.
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait().context("Cannot wait for a command")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(POLL);
    }
}

/// A program that runs beside the agent, its output in files.
pub(crate) struct Started {
    pub(crate) pid: u32,
    name: String,
    input: Mutex<Option<ChildStdin>>,
    end: Arc<(Mutex<Option<Finished>>, Condvar)>,
}

impl Started {
    /// Starts a program.
    pub(crate) fn new(name: &str, arguments: &[String]) -> Result<Self> {
        let (program, arguments) = arguments.split_first().context("There is no program to start")?;
        let (output, errors) = (path(name, "out"), path(name, "err"));
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(File::create(&output).context("Cannot create an output file")?)
            .stderr(File::create(&errors).context("Cannot create an error file")?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("Cannot start {program} in the lab host"))?;
        let started = Self {
            pid: child.id(),
            name: name.to_owned(),
            input: Mutex::new(child.stdin.take()),
            end: Arc::default(),
        };
        let end = Arc::clone(&started.end);
        thread::spawn(move || {
            let code = child.wait().map_or(-1, code_of);
            let finished = Finished {
                code,
                output: String::new(),
                errors: fs::read_to_string(&errors).unwrap_or_default(),
                elapsed_ms: millis(start),
            };
            if let Ok(mut slot) = end.0.lock() {
                *slot = Some(finished);
            }
            end.1.notify_all();
        });
        Ok(started)
    }

    /// Types text.
    pub(crate) fn input(&self, text: &str) -> Result<()> {
        let mut input = lock(&self.input)?;
        let pipe = input.as_mut().context("The program's input is closed")?;
        pipe.write_all(text.as_bytes())?;
        pipe.flush().context("Cannot type into the program")
    }

    /// Closes the input.
    pub(crate) fn close_input(&self) -> Result<()> {
        *lock(&self.input)? = None;
        Ok(())
    }

    /// Output from a byte on, waiting for some if there is none yet.
    pub(crate) fn output(&self, from: u64, wait: Duration) -> Result<(String, u64, bool)> {
        let deadline = Instant::now() + wait;
        loop {
            // In this order, so that the last output is not missed.
            let running = lock(&self.end.0)?.is_none();
            let mut file = File::open(path(&self.name, "out")).context("The output is gone")?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            if !bytes.is_empty() || !running || Instant::now() >= deadline {
                let next = from + bytes.len() as u64;
                return Ok((String::from_utf8_lossy(&bytes).into_owned(), next, running));
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        if lock(&self.end.0)?.is_some() {
            return Ok(());
        }
        let signal = Signal::from_named_raw(signal).context("There is no such signal")?;
        kill_process(pid_of(self.pid)?, signal).context("Cannot send a signal")
    }

    /// Waits for the end.
    pub(crate) fn wait(&self, limit: Duration) -> Result<Finished> {
        let slot = lock(&self.end.0)?;
        let waited = self.end.1.wait_timeout_while(slot, limit, |slot| slot.is_none());
        match waited {
            Ok((slot, _)) => slot
                .clone()
                .with_context(|| format!("{} did not end within {} s", self.name, limit.as_secs())),
            Err(_) => bail!("The thread that waits for {} panicked", self.name),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>> {
    mutex.lock().ok().context("A thread of the agent panicked")
}

fn path(name: &str, kind: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{name}.{kind}"))
}

fn pid_of(pid: u32) -> Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.context("The program has no process id")
}

fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

//! The harness's end: requests from any thread, answers matched by number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::protocol::{Answer, Finished, Numbered, Request};

/// An emulated machine on a busy one may be slow to answer at all.
const GRACE: Duration = Duration::from_secs(120);

/// When a request is sent once more over a line that may have lost it.
const REPEAT: Duration = Duration::from_secs(10);

/// A short command in the lab host.
const SHORT: Duration = Duration::from_secs(180);

type Pending = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

/// What the harness is connected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Nothing gets lost.
    Channel,
    /// A serial line: what comes while the lab host does not read it is lost. One that runs a guest on an emulated
    /// Intel CPU does not for as long as the guest has its interrupts off and does not exit.
    Line,
}

/// A connection to the agent in the lab host.
pub(crate) struct Agent {
    writer: Mutex<File>,
    carrier: Carrier,
    /// `None` once the lab machine is gone.
    pending: Pending,
    next: AtomicU64,
    lost: AtomicBool,
}

impl Agent {
    /// Speaks over the agent's port.
    pub(crate) fn new(port: File, carrier: Carrier) -> Result<Self> {
        let reader = port.try_clone().context("Cannot share the agent's port")?;
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let answers = Arc::clone(&pending);
        thread::spawn(move || dispatch(reader, &answers));
        Ok(Self {
            writer: Mutex::new(port),
            carrier,
            pending,
            next: AtomicU64::new(1),
            lost: AtomicBool::new(false),
        })
    }

    /// Whether the lab host answers yet.
    pub(crate) fn is_up(&self, limit: Duration) -> Result<()> {
        let request = Request::Exec {
            script: "true".to_owned(),
            limit_ms: 10_000,
        };
        self.call(request, limit).map(drop)
    }

    /// Whether the lab host once failed to answer in time or is gone. Nothing is asked any more
    /// then: each answer would have to be waited for in vain.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Runs a script, which must succeed, and returns its output.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        let finished = self.exec(script, SHORT)?;
        if finished.code != 0 {
            let said = crate::supplies::command::last_line(&finished.errors).to_owned();
            bail!("In the lab host `{script}` failed ({}): {said}", finished.code);
        }
        Ok(finished.output)
    }

    /// Runs a script and returns how it ended.
    pub(crate) fn exec(&self, script: &str, limit: Duration) -> Result<Finished> {
        let request = Request::Exec {
            script: script.to_owned(),
            limit_ms: millis(limit),
        };
        self.finished(request, self.patience(limit))
    }

    /// Starts a program that stays, and returns its process id.
    pub(crate) fn start(&self, name: &str, arguments: Vec<String>) -> Result<u32> {
        let name = name.to_owned();
        match self.call(Request::Start { name, arguments }, self.patience(Duration::ZERO))? {
            Answer::Started { pid } => Ok(pid),
            other => unexpected(&other),
        }
    }

    /// Types into a started program.
    pub(crate) fn input(&self, name: &str, text: &str) -> Result<()> {
        let (name, text) = (name.to_owned(), text.to_owned());
        self.call(Request::Input { name, text }, self.patience(Duration::ZERO))
            .map(drop)
    }

    /// Closes a started program's input.
    pub(crate) fn close_input(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.call(Request::CloseInput { name }, self.patience(Duration::ZERO))
            .map(drop)
    }

    /// Output of a started program from a byte on: the text, where it ends, whether more may come.
    pub(crate) fn output(&self, name: &str, from: u64, wait: Duration) -> Result<(String, u64, bool)> {
        let request = Request::Output {
            name: name.to_owned(),
            from,
            wait_ms: millis(wait),
        };
        match self.call(request, self.patience(wait))? {
            Answer::Output { text, next, running } => Ok((text, next, running)),
            other => unexpected(&other),
        }
    }

    /// Sends a signal to a started program.
    pub(crate) fn signal(&self, name: &str, signal: i32) -> Result<()> {
        let name = name.to_owned();
        self.call(Request::Signal { name, signal }, self.patience(Duration::ZERO))
            .map(drop)
    }

    /// Waits for the end of a started program.
    pub(crate) fn wait(&self, name: &str, limit: Duration) -> Result<Finished> {
        let request = Request::Wait {
            name: name.to_owned(),
            limit_ms: millis(limit),
        };
        self.finished(request, self.patience(limit))
    }

    /// How long an answer may take that the lab host needs `limit` for.
    fn patience(&self, limit: Duration) -> Duration {
        match self.carrier {
            Carrier::Channel => limit + GRACE,
            Carrier::Line => limit + 5 * GRACE,
        }
    }

    fn finished(&self, request: Request, limit: Duration) -> Result<Finished> {
        match self.call(request, limit)? {
            Answer::Done(finished) => Ok(finished),
            other => unexpected(&other),
        }
    }

    fn call(&self, body: Request, limit: Duration) -> Result<Answer> {
        if self.is_lost() {
            bail!("The lab host does not answer any more");
        }
        match self.try_call(body, limit) {
            Ok(Answer::Failed { message }) => bail!("{message}"),
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.lost.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn try_call(&self, body: Request, limit: Duration) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        match self.pending.lock().ok().as_deref_mut() {
            Some(Some(pending)) => pending.insert(id, sender),
            _ => bail!("The lab machine has stopped"),
        };
        let line = Numbered { id, body }.to_line()?;
        let deadline = Instant::now() + limit;
        loop {
            self.send(&line)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = match self.carrier {
                Carrier::Channel => left,
                Carrier::Line => left.min(REPEAT),
            };
            match receiver.recv_timeout(wait) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => bail!("The lab machine has stopped"),
                Err(RecvTimeoutError::Timeout) if wait < left => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("The lab host did not answer within {} s", limit.as_secs())
                }
            }
        }
    }

    fn send(&self, line: &str) -> Result<()> {
        let mut writer = self
            .writer
            .lock()
            .ok()
            .context("A thread of the harness panicked")?;
        writer
            .write_all(line.as_bytes())
            .context("The lab machine has stopped")
    }
}

fn dispatch(port: File, pending: &Pending) {
    for line in BufReader::new(port).lines() {
        let Ok(line) = line else { break };
        let Ok(answer) = serde_json::from_str::<Numbered<Answer>>(&line) else {
            eprintln!("The lab host sent a line that is no answer: {line}");
            continue;
        };
        let waiting = pending
            .lock()
            .ok()
            .and_then(|mut pending| pending.as_mut()?.remove(&answer.id));
        if let Some(sender) = waiting {
            let _ = sender.send(answer.body);
        }
    }
    if let Ok(mut pending) = pending.lock() {
        *pending = None;
    }
}

fn unexpected<T>(answer: &Answer) -> Result<T> {
    bail!("The lab host answered something else: {answer:?}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

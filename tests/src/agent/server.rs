//! The end inside the lab host: one thread per request.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lost_eoi;
use super::program::{self, Started};
use super::protocol::{Answer, Numbered, PORT, Request};

/// Serves requests at a port, the lab machine's own where none is named, until it closes for good, which it never does.
pub(crate) fn serve(port: Option<PathBuf>) -> Result<()> {
    lost_eoi::watch();
    let path = port.map_or_else(find_port, Ok)?;
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("Cannot open {}", path.display()))?;
    let agent = Arc::new(Server {
        writer: Mutex::new(port.try_clone().context("Cannot share the port")?),
        programs: Mutex::default(),
    });
    let mut lines = BufReader::new(Patient(port));
    let mut known = HashSet::new();
    loop {
        let mut line = Vec::new();
        lines
            .read_until(b'\n', &mut line)
            .context("Cannot read from the port")?;
        // What did not arrive whole is sent again, and so may be what did.
        let request = Numbered::from_line(&String::from_utf8_lossy(&line));
        if let Some(request) = request.filter(|request| known.insert(request.id)) {
            let agent = Arc::clone(&agent);
            thread::spawn(move || agent.handle(request));
        }
    }
}

struct Server {
    writer: Mutex<File>,
    programs: Mutex<HashMap<String, Arc<Started>>>,
}

impl Server {
    fn handle(&self, request: Numbered<Request>) {
        let body = self.answer(request.body).unwrap_or_else(|error| Answer::Failed {
            message: format!("{error:#}"),
        });
        if let Err(error) = self.send(&Numbered { id: request.id, body }) {
            eprintln!("lab agent: cannot answer: {error:#}");
        }
    }

    fn send(&self, answer: &Numbered<Answer>) -> Result<()> {
        let mut line = serde_json::to_string(answer)?;
        line.push('\n');
        let mut writer = self.writer.lock().ok().context("A thread panicked")?;
        writer.write_all(line.as_bytes()).context("The port is closed")
    }

    fn answer(&self, request: Request) -> Result<Answer> {
        let answer = match request {
            Request::Exec { script, limit_ms } => {
                Answer::Done(program::exec(&script, Duration::from_millis(limit_ms))?)
            }
            Request::Start { name, arguments } => {
                let started = Started::new(&name, &arguments)?;
                let pid = started.pid;
                self.programs()?.insert(name, Arc::new(started));
                Answer::Started { pid }
            }
            Request::Input { name, text } => self.find(&name)?.input(&text).map(|()| Answer::Ok)?,
            Request::CloseInput { name } => self.find(&name)?.close_input().map(|()| Answer::Ok)?,
            Request::Output { name, from, wait_ms } => {
                let wait = Duration::from_millis(wait_ms);
                let (text, next, running) = self.find(&name)?.output(from, wait)?;
                Answer::Output { text, next, running }
            }
            Request::Signal { name, signal } => self.find(&name)?.signal(signal).map(|()| Answer::Ok)?,
            Request::Wait { name, limit_ms } => {
                Answer::Done(self.find(&name)?.wait(Duration::from_millis(limit_ms))?)
            }
        };
        Ok(answer)
    }

    fn find(&self, name: &str) -> Result<Arc<Started>> {
        let programs = self.programs()?;
        let program = programs.get(name).cloned();
        program.with_context(|| format!("No program {name} was started"))
    }

    fn programs(&self) -> Result<std::sync::MutexGuard<'_, HashMap<String, Arc<Started>>>> {
        self.programs
            .lock()
            .ok()
            .context("A thread of the agent panicked")
    }
}

/// A virtio serial port reads as ended while nobody holds its other end.
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(buffer)? {
                0 => thread::sleep(Duration::from_millis(100)),
                count => return Ok(count),
            }
        }
    }
}

fn find_port() -> Result<PathBuf> {
    let class = "/sys/class/virtio-ports";
    let ports = fs::read_dir(class).context("The lab host has no virtio serial port")?;
    for port in ports.flatten() {
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(PathBuf::from("/dev").join(port.file_name()));
        }
    }
    anyhow::bail!("No virtio serial port is named {PORT}")
}

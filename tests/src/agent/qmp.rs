//! Commands to a VMM's control socket, inside the lab host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// For what hangs.
const LIMIT: Duration = Duration::from_secs(180);

/// Says words one after the other and prints what follows from each, a line each. A word is the name of a command, or a
/// command with its arguments as JSON; behind an exclamation mark, one that is refused; or `event:NAME`, for which it waits
/// unless it has come already.
pub(crate) fn speak(socket: &Path, words: &[String]) -> Result<()> {
    let mut client = Client::connect(socket)?;
    let _nothing = client.ask("qmp_capabilities")?;
    for word in words {
        let said = match (word.strip_prefix('!'), word.strip_prefix("event:")) {
            (Some(command), _) => match client.ask(command)? {
                Err(Refused(why)) => why,
                Ok(result) => bail!("{command} is not refused, it returns {result}"),
            },
            (None, Some(name)) => client.event(name)?,
            (None, None) => match client.ask(word)? {
                Ok(result) => result,
                Err(Refused(why)) => bail!("{word} is refused: {why}"),
            },
        };
        println!("{said}");
    }
    Ok(())
}

/// What the VMM says to a command that it does not do.
struct Refused(Value);

struct Client {
    writer: UnixStream,
    lines: BufReader<UnixStream>,
    /// Events that came while something else was waited for.
    events: Vec<Value>,
}

impl Client {
    fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("Cannot connect to {}", socket.display()))?;
        stream
            .set_read_timeout(Some(LIMIT))
            .context("Cannot set a time limit")?;
        let writer = stream.try_clone().context("Cannot share the socket")?;
        let mut client = Self {
            writer,
            lines: BufReader::new(stream),
            events: Vec::new(),
        };
        client.line().context("No greeting came")?;
        Ok(client)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line).context("Nothing came")? == 0 {
            bail!("The VMM hung up");
        }
        serde_json::from_str(&line).with_context(|| format!("This is no JSON: {line}"))
    }

    /// Events come between a command and its answer.
    fn ask(&mut self, command: &str) -> Result<Result<Value, Refused>> {
        let request = match command.starts_with('{') {
            true => serde_json::from_str(command).with_context(|| format!("{command} is no JSON"))?,
            false => json!({"execute": command}),
        };
        writeln!(self.writer, "{request}").context("Cannot send a command")?;
        loop {
            let mut answer = self.line().with_context(|| format!("{command} has no answer"))?;
            if let Some(error) = answer.get_mut("error") {
                return Ok(Err(Refused(error.take())));
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(Ok(result.take()));
            }
            self.events.push(answer);
        }
    }

    fn event(&mut self, name: &str) -> Result<Value> {
        let is_it = |event: &Value| event["event"] == name;
        if let Some(at) = self.events.iter().position(is_it) {
            return Ok(self.events.remove(at)["data"].take());
        }
        loop {
            let mut event = self.line().with_context(|| format!("No event {name} came"))?;
            if is_it(&event) {
                return Ok(event["data"].take());
            }
            self.events.push(event);
        }
    }
}

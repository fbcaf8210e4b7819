//! Commands to a VMM's control socket, inside the lab host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// For what hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Sends commands one after the other and prints what each returns, a line each.
pub(crate) fn speak(socket: &Path, commands: &[String]) -> Result<()> {
    let stream =
        UnixStream::connect(socket).with_context(|| format!("Cannot connect to {}", socket.display()))?;
    stream
        .set_read_timeout(Some(LIMIT))
        .context("Cannot set a time limit")?;
    let mut writer = stream.try_clone().context("Cannot share the socket")?;
    let mut lines = BufReader::new(stream);
    let mut greeting = String::new();
    lines.read_line(&mut greeting).context("No greeting came")?;
    ask(&mut writer, &mut lines, "qmp_capabilities")?;
    for command in commands {
        println!("{}", ask(&mut writer, &mut lines, command)?);
    }
    Ok(())
}

/// Events come between a command and its answer.
fn ask(writer: &mut UnixStream, lines: &mut BufReader<UnixStream>, command: &str) -> Result<Value> {
    writeln!(writer, "{}", json!({"execute": command})).context("Cannot send a command")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).context("No answer came")? == 0 {
            bail!("The VMM hung up before it answered {command}");
        }
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("This is no JSON: {line}"))?;
        if let Some(error) = answer.get("error") {
            bail!("{command} is refused: {error}");
        }
        if let Some(result) = answer.get_mut("return") {
            return Ok(result.take());
        }
    }
}

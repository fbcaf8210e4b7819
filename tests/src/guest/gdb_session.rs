//! Stock gdb on the lab host, at a guest's kernel.

use anyhow::{Context, Result};

use super::Guest;
use crate::agent::Agent;

/// Where gdb is let in.
pub(crate) const SOCKET: &str = "/run/gdb";

/// Its file of symbols.
pub(crate) const SYMBOLS: &str = "/run/guest.sym";

/// The shell command that attaches gdb with [`SYMBOLS`], which may be empty, and executes a script.
pub(crate) fn command(script: &str) -> String {
    session(SYMBOLS, "", script)
}

/// The same with other commands before it attaches, and without the symbols.
pub(crate) fn command_with(preparation: &str, script: &str) -> String {
    session("", preparation, script)
}

fn session(symbols: &str, preparation: &str, script: &str) -> String {
    format!(
        "cat > /run/script << 'END'\nset pagination off\nset confirm off\n{preparation}\
         target remote {SOCKET}\n{script}\nEND\n\
         HOME=/root gdb -nx -q -batch -x /run/script {symbols} < /dev/null"
    )
}

/// Makes the file of symbols from what a guest's kernel tells of these names.
pub(crate) fn symbols(agent: &Agent, guest: &mut Guest<'_>, names: &str) -> Result<()> {
    let kallsyms = guest.sh(&format!("grep -wE '{names}' /proc/kallsyms"))?;
    let script =
        format!("cat > /run/kallsyms << 'END'\n{kallsyms}\nEND\nstrait symbols /run/kallsyms {SYMBOLS}");
    agent.sh(&script).context("The symbols of the guest")?;
    Ok(())
}

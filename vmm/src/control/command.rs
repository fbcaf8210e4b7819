//! What can be said.

use serde_json::{Value, json};

use super::wire::{Call, Refusal};

/// A command without arguments, which all of them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Capabilities,
    Version,
    Commands,
    Status,
    Pci,
    Cpus,
    Strait,
    Stop,
    Cont,
    Reset,
    Quit,
}

/// By name.
const COMMANDS: [(&str, Command); 11] = [
    ("qmp_capabilities", Command::Capabilities),
    ("query-version", Command::Version),
    ("query-commands", Command::Commands),
    ("query-status", Command::Status),
    ("query-pci", Command::Pci),
    ("query-cpus-fast", Command::Cpus),
    ("x-query-strait", Command::Strait),
    ("stop", Command::Stop),
    ("cont", Command::Cont),
    ("system_reset", Command::Reset),
    ("quit", Command::Quit),
];

/// The command that a client calls. Before `qmp_capabilities` there is no other, and behind it that one is none.
pub(super) fn find(call: &Call, is_ready: bool) -> Result<Command, Refusal> {
    let found = COMMANDS.iter().find(|(name, _)| *name == call.name);
    let Some((name, command)) = found else {
        return Err(Refusal::not_found(format!("there is no command {:?}", call.name)));
    };
    if is_ready == (*command == Command::Capabilities) {
        return Err(Refusal::not_found(match is_ready {
            true => "capabilities are agreed on already",
            false => "capabilities come first; say qmp_capabilities",
        }));
    }
    let agrees = *command == Command::Capabilities
        && call.arguments.keys().eq(["enable"])
        && call.arguments["enable"] == json!([]);
    match call.arguments.keys().next() {
        Some(argument) if !agrees => Err(Refusal::generic(format!(
            "{name} does not take {argument:?} as it is given here"
        ))),
        _ => Ok(*command),
    }
}

/// The answer to `query-commands`.
pub(super) fn names() -> Value {
    COMMANDS.iter().map(|(name, _)| json!({"name": name})).collect()
}

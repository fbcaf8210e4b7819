//! What can be said.

use serde_json::{Map, Value, json};

use super::wire::{Call, Refused};

/// A command, with what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Powerdown,
    /// A device is to come.
    Attach(Attachment),
    /// The device with this id is to leave; the guest is not asked where it is `true`.
    Detach(String, bool),
}

/// A device that is to come to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// A value of `--device`.
    pub device: String,
    /// Those of other functions of the same device, to come into the same slot.
    pub others: Vec<String>,
}

/// What a command is, once its arguments are known to be among those that it takes.
type Reads = fn(&Map<String, Value>) -> Result<Command, Refused>;

/// By name, with the arguments that each takes.
const COMMANDS: [(&str, &[&str], Reads); 14] = [
    ("qmp_capabilities", &["enable"], capabilities),
    ("query-version", &[], |_| Ok(Command::Version)),
    ("query-commands", &[], |_| Ok(Command::Commands)),
    ("query-status", &[], |_| Ok(Command::Status)),
    ("query-pci", &[], |_| Ok(Command::Pci)),
    ("query-cpus-fast", &[], |_| Ok(Command::Cpus)),
    ("x-query-strait", &[], |_| Ok(Command::Strait)),
    ("stop", &[], |_| Ok(Command::Stop)),
    ("cont", &[], |_| Ok(Command::Cont)),
    ("system_reset", &[], |_| Ok(Command::Reset)),
    ("system_powerdown", &[], |_| Ok(Command::Powerdown)),
    ("quit", &[], |_| Ok(Command::Quit)),
    (
        "device_add",
        &[
            "driver", "host", "sysfsdev", "id", "managed", "rombar", "romfile", "msix", "with",
        ],
        attach,
    ),
    ("device_del", &["id", "force"], detach),
];

/// The command that a client calls. Before `qmp_capabilities` there is no other, and behind it that one is none.
pub(super) fn find(call: &Call, is_ready: bool) -> Result<Command, Refused> {
    let found = COMMANDS.iter().find(|(name, ..)| *name == call.name);
    let Some((name, takes, read)) = found else {
        return Err(Refused::no_command(format!(
            "there is no command {:?}",
            call.name
        )));
    };
    if is_ready == (*name == "qmp_capabilities") {
        return Err(Refused::no_command(match is_ready {
            true => "capabilities are agreed on already",
            false => "capabilities come first; say qmp_capabilities",
        }));
    }
    let mut given = call.arguments.keys();
    match given.find(|argument| !takes.contains(&argument.as_str())) {
        Some(argument) => Err(not_taken(name, argument)),
        None => read(&call.arguments),
    }
}

/// The answer to `query-commands`.
pub(super) fn names() -> Value {
    COMMANDS.iter().map(|(name, ..)| json!({"name": name})).collect()
}

fn not_taken(command: &str, argument: &str) -> Refused {
    Refused::generic(format!(
        "{command} does not take {argument:?} as it is given here"
    ))
}

fn capabilities(arguments: &Map<String, Value>) -> Result<Command, Refused> {
    match arguments.get("enable") {
        None => Ok(Command::Capabilities),
        Some(list) if *list == json!([]) => Ok(Command::Capabilities),
        Some(_) => Err(not_taken("qmp_capabilities", "enable")),
    }
}

/// The arguments are keys of `--device`, which has them as one text.
fn attach(arguments: &Map<String, Value>) -> Result<Command, Refused> {
    let mut keys = vec!["vfio-pci".to_owned()];
    let mut others = Vec::new();
    for (key, value) in arguments {
        match (key.as_str(), value) {
            ("driver", value) if value == "vfio-pci" => {}
            ("driver", _) => return Err(not_taken("device_add", "driver")),
            ("with", value) => others = texts(value).ok_or_else(|| not_taken("device_add", "with"))?,
            (key, value) => {
                let text = text(value).ok_or_else(|| not_taken("device_add", key))?;
                keys.push(format!("{key}={text}"));
            }
        }
    }
    let managed = keys.iter().find(|key| key.starts_with("managed=")).cloned();
    let shared = |host: String| {
        [Some(host), managed.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let others = others.into_iter().map(|host| shared(host).join(",")).collect();
    Ok(Command::Attach(Attachment {
        device: keys.join(","),
        others,
    }))
}

fn detach(arguments: &Map<String, Value>) -> Result<Command, Refused> {
    let Some(Value::String(id)) = arguments.get("id") else {
        return Err(match arguments.contains_key("id") {
            true => not_taken("device_del", "id"),
            false => Refused::generic("device_del needs the \"id\" of a device"),
        });
    };
    match arguments.get("force") {
        None => Ok(Command::Detach(id.clone(), false)),
        Some(Value::Bool(force)) => Ok(Command::Detach(id.clone(), *force)),
        Some(_) => Err(not_taken("device_del", "force")),
    }
}

/// The value of a key, which has no comma: it would begin the next one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(is_on) => Some(if *is_on { "on" } else { "off" }.to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()).filter(|text| !text.contains(',')),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => Some(vec![text(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, arguments: Value) -> Result<Command, Refused> {
        let Value::Object(arguments) = arguments else {
            panic!("an object")
        };
        let name = name.to_owned();
        find(
            &Call {
                name,
                arguments,
                id: None,
            },
            true,
        )
    }

    #[test]
    fn a_device_comes_by_the_keys_of_the_command_line() {
        let read = read(
            "device_add",
            json!({"driver": "vfio-pci", "host": "01:00.0", "id": "net0", "managed": true, "rombar": 0, "with": "01:00.1"}),
        );
        let wanted = Attachment {
            device: "vfio-pci,host=01:00.0,id=net0,managed=on,rombar=0".to_owned(),
            others: vec!["01:00.1,managed=on".to_owned()],
        };
        assert_eq!(read, Ok(Command::Attach(wanted)));
    }

    #[test]
    fn what_is_not_taken_is_named() {
        for (name, arguments, named) in [
            ("stop", json!({"at": 1}), "\"at\""),
            ("device_add", json!({"driver": "e1000"}), "\"driver\""),
            ("device_add", json!({"host": "1:0.0,managed=on"}), "\"host\""),
            ("device_add", json!({"host": [1]}), "\"host\""),
            ("device_add", json!({"with": {}}), "\"with\""),
            ("device_add", json!({"bus": "pcie.0"}), "\"bus\""),
            ("device_del", json!({}), "\"id\""),
            ("device_del", json!({"id": 7}), "\"id\""),
            ("device_del", json!({"id": "a", "force": "yes"}), "\"force\""),
        ] {
            let refused = format!("{:?}", read(name, arguments).expect_err(name));
            assert!(refused.replace("\\", "").contains(named), "{refused}");
        }
    }

    #[test]
    fn a_device_leaves_by_its_id() {
        let read = |arguments| read("device_del", arguments);
        assert_eq!(
            read(json!({"id": "net0"})),
            Ok(Command::Detach("net0".to_owned(), false))
        );
        assert_eq!(
            read(json!({"id": "net0", "force": true})),
            Ok(Command::Detach("net0".to_owned(), true))
        );
    }
}

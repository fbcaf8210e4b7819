//! QMP: what a client's commands mean, and how answers and events look (QEMU, docs/interop/qmp-spec.rst).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

/// Bytes of the longest command that is listened to.
pub(super) const MAX_LINE: usize = 64 << 10;

/// A command as it came.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) id: Option<Value>,
}

/// Why a command is not done, in QMP's classes.
#[derive(Debug, PartialEq)]
pub struct Refused {
    class: &'static str,
    why: String,
}

impl Refused {
    /// Of QMP's class for all that has none of its own, with this reason.
    pub fn generic(why: impl Into<String>) -> Self {
        Self {
            class: "GenericError",
            why: why.into(),
        }
    }

    pub(super) fn no_command(why: impl Into<String>) -> Self {
        Self {
            class: "CommandNotFound",
            why: why.into(),
        }
    }

    /// The machine has no such device.
    pub fn no_device(why: impl Into<String>) -> Self {
        Self {
            class: "DeviceNotFound",
            why: why.into(),
        }
    }
}

/// Reads a command. serde_json goes 128 levels deep and refuses what is deeper.
///
/// # Errors
/// What is wrong, with the `id` if there is one.
pub(super) fn read(line: &[u8]) -> Result<Call, (Refused, Option<Value>)> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| (Refused::generic(format!("this is no JSON: {error}")), None))?;
    let Value::Object(mut members) = value else {
        return Err((Refused::generic("a command is a JSON object"), None));
    };
    let id = members.remove("id");
    let refuse = |why: &str| Err((Refused::generic(why), id.clone()));
    let name = match members.remove("execute") {
        Some(Value::String(name)) => name,
        Some(_) => return refuse("\"execute\" is not a string"),
        None => return refuse("\"execute\" is missing"),
    };
    let arguments = match members.remove("arguments") {
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return refuse("\"arguments\" is not an object"),
        None => Map::new(),
    };
    match members.keys().next() {
        Some(_) => refuse("a command has \"execute\", \"arguments\" and \"id\" only"),
        None => Ok(Call { name, arguments, id }),
    }
}

/// What a client hears first.
pub(super) fn greeting() -> Value {
    let part = |text: &str| text.parse::<u64>().unwrap_or(0);
    json!({"QMP": {
        "version": {
            "qemu": {
                "major": part(env!("CARGO_PKG_VERSION_MAJOR")),
                "minor": part(env!("CARGO_PKG_VERSION_MINOR")),
                "micro": part(env!("CARGO_PKG_VERSION_PATCH")),
            },
            "package": concat!("strait ", env!("CARGO_PKG_VERSION")),
        },
        "capabilities": [],
    }})
}

/// The answer to a command.
pub(super) fn answer(result: Result<Value, Refused>, id: Option<Value>) -> Value {
    let mut answer = match result {
        Ok(value) => json!({"return": value}),
        Err(Refused { class, why }) => json!({"error": {"class": class, "desc": why}}),
    };
    if let Some(id) = id {
        answer["id"] = id;
    }
    answer
}

/// Something that happened by itself.
pub(crate) fn event(name: &str, data: Option<Value>) -> Value {
    let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut event = json!({
        "timestamp": {"seconds": now.as_secs(), "microseconds": now.subsec_micros()},
        "event": name,
    });
    if let Some(data) = data {
        event["data"] = data;
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_with_arguments_and_id() {
        let call = read(br#"{"execute": "stop", "arguments": {"a": 1}, "id": [7]}"#).expect("right");
        assert_eq!((call.name.as_str(), call.id), ("stop", Some(json!([7]))));
        assert_eq!(call.arguments["a"], 1);
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_id_that_it_has() {
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        let lines: [&[u8]; 7] = [b"{", b"7", b"\xff\xfe", &deep, b"[]", b"{}", br#"{"execute": 1}"#];
        for line in lines {
            let (refusal, id) = read(line).expect_err("wrong");
            assert_eq!((refusal.class, id), ("GenericError", None));
        }
        for rest in [
            r#""execute": 1"#,
            r#""execute": "stop", "arguments": []"#,
            r#""execute": "stop", "x": 1"#,
        ] {
            let (_, id) = read(format!("{{\"id\": 5, {rest}}}").as_bytes()).expect_err("wrong");
            assert_eq!(id, Some(json!(5)), "{rest}");
        }
    }
}

//! The commands against guests that say what a test wants them to.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use strait_vfio::host::Root;
use tempfile::TempDir;

use super::connection::Connection;
use super::trouble::Trouble;
use crate::cli::screen::Screen;
use crate::cli::{Command, parse_from};
use crate::guests::Guests;

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"major": 0}, "package": "strait 0.1.0"}, "capabilities": []}}"#;

/// What is said to a command: `return`, or whole lines before and behind it.
type Answers = Vec<(&'static str, Vec<Value>)>;

/// A guest with a name that hears commands in this order, each with these arguments if they are given, and says this.
struct FakeGuest(JoinHandle<Vec<Value>>);

impl FakeGuest {
    fn start(folder: &Path, name: &str, answers: Answers) -> Self {
        let listener = UnixListener::bind(folder.join(format!("{name}.sock"))).expect("a socket");
        Self(thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            serve(stream, answers)
        }))
    }

    /// The commands with their arguments as they came.
    fn heard(self) -> Vec<Value> {
        self.0.join().expect("it was served")
    }
}

fn serve(mut stream: UnixStream, answers: Answers) -> Vec<Value> {
    let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
    writeln!(stream, "{GREETING}").expect("it reads");
    let mut heard = Vec::new();
    let greeted = ("qmp_capabilities", vec![json!({"return": {}})]);
    for (command, said) in [greeted].into_iter().chain(answers) {
        let Some(Ok(line)) = lines.next() else { break };
        let mut call: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(call["execute"], command);
        for mut line in said {
            if line.get("event").is_none() {
                line["id"] = call["id"].clone();
            }
            writeln!(stream, "{line}").expect("it reads");
        }
        call.as_object_mut().expect("an object").remove("id");
        heard.push(call);
    }
    heard
}

fn returns(value: Value) -> Vec<Value> {
    vec![json!({"return": value})]
}

fn event(name: &str, data: Value) -> Value {
    json!({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}})
}

/// What `strait ctl` prints and ends with, or its exit code and message.
fn ctl(folder: &TempDir, line: &str) -> Result<String, (u8, String)> {
    let words = format!("strait ctl {line}");
    let Command::Ctl(args) = parse_from(words.trim().split(' '))
        .map_err(|(message, code)| (code, message))?
        .command
    else {
        panic!("another command");
    };
    let mut out = Vec::new();
    let done = args.run(
        &Guests::at(folder.path()),
        &Root::at("/nonexistent"),
        &mut Screen::plain(&mut out),
    );
    match done {
        Ok(_) => Ok(String::from_utf8(out).expect("text")),
        Err(failure) => Err((failure.code, failure.message)),
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("ctl")
        .tempdir()
        .expect("a folder")
}

fn facts() -> Answers {
    vec![
        (
            "query-status",
            returns(json!({"status": "paused", "running": false})),
        ),
        (
            "query-cpus-fast",
            returns(json!([{"thread-id": 7}, {"thread-id": 8}])),
        ),
        (
            "x-query-strait",
            returns(json!({
                "name": "web", "pid": 4242, "uptime-seconds": 61, "memory-bytes": 512 << 20, "locked-bytes": 0,
                "memory": {"pages": "2M", "shared": true, "nodes": "0-1"},
                "devices": [{"id": "net0", "host": "0000:01:00.0", "path": "0000:02:00.0"}],
            })),
        ),
    ]
}

#[test]
fn guests_are_listed_and_dead_ones_are_not() {
    let folder = folder();
    assert_eq!(ctl(&folder, "list"), Ok(String::new()));
    drop(UnixListener::bind(folder.path().join("dead.sock")));
    FakeGuest::start(folder.path(), "web", facts());
    assert_eq!(
        ctl(&folder, "list").expect("a list"),
        "NAME  STATE    CPUS     MEMORY  DEVICES  PID\n\
         web   paused      2    512 MiB        1  4242\n"
    );
    fs::remove_file(folder.path().join("web.sock")).expect("a socket");
    FakeGuest::start(folder.path(), "web", facts());
    let listed: Value = serde_json::from_str(&ctl(&folder, "list --json").expect("a list")).expect("JSON");
    assert_eq!(listed[0]["name"], "web");
    assert_eq!(listed[0]["status"], "paused");
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
}

#[test]
fn a_guest_is_described_to_people_and_to_programs() {
    let folder = folder();
    FakeGuest::start(folder.path(), "web", facts());
    assert_eq!(
        ctl(&folder, "info").expect("the only guest"),
        "web\n  state    paused\n  for      1 min 1 s\n  process  4242\n  program  strait 0.1.0\n  CPUs     2\n  \
         memory   512 MiB, in pages of 2M, host-nodes 0-1\n  locked   0 KiB\n  device   net0 (0000:01:00.0) is 0000:02:00.0 in the guest\n"
    );
    fs::remove_file(folder.path().join("web.sock")).expect("a socket");
    FakeGuest::start(folder.path(), "web", facts());
    let described: Value =
        serde_json::from_str(&ctl(&folder, "web info --json").expect("told")).expect("JSON");
    assert_eq!(described["cpu_threads"], json!([7, 8]));
    assert_eq!(described["devices"][0]["guest"], "0000:02:00.0");
}

#[test]
fn no_guest_is_called_as_a_command_is_by_whichever_name() {
    for word in ["list", "ls", "names", "pause", "help"] {
        assert!(super::CtlArgs::is_command(word), "{word}");
    }
    assert!(!super::CtlArgs::is_command("web"));
}

#[test]
fn a_device_that_cannot_be_meant_is_told_of_once() {
    let folder = folder();
    FakeGuest::start(folder.path(), "web", Vec::new());
    let (code, said) = ctl(&folder, "web attach 01:00.0,id=a,id=b").expect_err("twice");
    assert_eq!(
        (code, said.as_str()),
        (2, "01:00.0,id=a,id=b: the key \"id\" is given twice")
    );
}

#[test]
fn a_command_is_one_of_qmp() {
    for (line, command) in [
        ("web pause", "stop"),
        ("web resume", "cont"),
        ("web reset", "system_reset"),
    ] {
        let folder = folder();
        let guest = FakeGuest::start(folder.path(), "web", vec![(command, returns(json!({})))]);
        assert_eq!(ctl(&folder, line), Ok(String::new()), "{line}");
        assert_eq!(guest.heard().len(), 2, "{line}");
    }
}

#[test]
fn the_end_is_waited_for() {
    let folder = folder();
    let ended = vec![json!({"return": {}}), event("SHUTDOWN", json!({"guest": false}))];
    let strait = ("x-query-strait", returns(json!({})));
    let guest = FakeGuest::start(folder.path(), "web", vec![strait, ("quit", ended)]);
    assert_eq!(ctl(&folder, "web quit"), Ok(String::new()));
    assert_eq!(guest.heard().len(), 3);
}

#[test]
fn a_guest_that_stays_on_is_told_with_a_code_of_its_own() {
    let folder = folder();
    let strait = ("x-query-strait", returns(json!({})));
    let powerdown = ("system_powerdown", returns(json!({})));
    // It waits for one more command.
    let guest = FakeGuest::start(folder.path(), "web", vec![strait, powerdown, ("quit", vec![])]);
    let (code, message) = ctl(&folder, "web powerdown --wait 50ms").expect_err("it stays on");
    assert_eq!(code, 6, "{message}");
    assert!(
        message.starts_with("web: it did not power off in 50ms, "),
        "{message}"
    );
    guest.heard();
}

#[test]
fn a_device_is_put_in_and_its_place_is_told() {
    let folder = folder();
    let added = returns(json!({"id": "net0", "path": "0000:02:00.0"}));
    let guest = FakeGuest::start(folder.path(), "web", vec![("device_add", added)]);
    assert_eq!(
        ctl(&folder, "web attach 01:10.0,id=net0,managed=on"),
        Ok("net0 is 0000:02:00.0 in the guest\n".to_owned())
    );
    assert_eq!(
        guest.heard()[1]["arguments"],
        json!({"driver": "vfio-pci", "host": "0000:01:10.0", "id": "net0", "managed": true})
    );
    let (code, message) = ctl(&folder, "web attach nonsense").expect_err("no device");
    assert_eq!(code, 3, "the guest is gone: {message}");
}

/// What `detach` says where the guest answers `device_del` with these lines.
fn detached(line: &str, said: Vec<Value>) -> (Result<String, (u8, String)>, Value) {
    let folder = folder();
    let strait = facts().remove(2);
    let guest = FakeGuest::start(
        folder.path(),
        "web",
        vec![strait, ("device_del", said), ("", vec![])],
    );
    let done = ctl(&folder, line);
    let arguments = guest.heard().get(2).map(|call| call["arguments"].clone());
    (done, arguments.unwrap_or_default())
}

#[test]
fn a_device_is_taken_out_when_the_guest_let_go_of_it() {
    let gone = event(
        "DEVICE_DELETED",
        json!({"device": "net0", "path": "0000:02:00.0"}),
    );
    let other = event(
        "DEVICE_DELETED",
        json!({"device": "net1", "path": "0000:03:00.0"}),
    );
    let answer = json!({"return": {}});
    for device in ["net0", "0000:01:00.0", "1:00.0", "pci_0000_01_00_0"] {
        let said = vec![other.clone(), answer.clone(), gone.clone()];
        let (done, arguments) = detached(&format!("web detach {device}"), said);
        assert_eq!(
            (done, arguments),
            (Ok(String::new()), json!({"id": "net0"})),
            "{device}"
        );
    }
    // It may be told before it is answered.
    let (done, arguments) = detached("web detach --force net0", vec![gone, answer.clone()]);
    assert_eq!(done, Ok(String::new()));
    assert_eq!(arguments, json!({"id": "net0", "force": true}));
    let (done, _) = detached("web detach --wait 0 net0", vec![answer]);
    assert_eq!(done, Ok(String::new()));
}

#[test]
fn a_guest_that_keeps_a_device_is_told_with_a_code_of_its_own() {
    let answer = json!({"return": {}});
    let kept = event(
        "DEVICE_UNPLUG_GUEST_ERROR",
        json!({"device": "net0", "path": "0000:02:00.0"}),
    );
    let (done, _) = detached("web detach net0", vec![answer.clone(), kept]);
    let (code, message) = done.expect_err("kept");
    assert_eq!(code, 6);
    assert_eq!(
        message,
        "web: it keeps net0 (0000:01:00.0); `--force` takes it without asking"
    );
    let (done, _) = detached("web detach net0 --wait 50ms", vec![answer]);
    let (code, message) = done.expect_err("not yet");
    assert_eq!(code, 6);
    assert!(
        message.starts_with("web: it did not let go of net0 (0000:01:00.0) in 50ms, "),
        "{message}"
    );
}

#[test]
fn a_device_that_is_not_there_is_told_with_those_that_are() {
    let folder = folder();
    FakeGuest::start(folder.path(), "web", vec![facts().remove(2)]);
    let (code, message) = ctl(&folder, "web detach net1").expect_err("no such device");
    assert_eq!(
        (code, message.as_str()),
        (1, "web: it has no device \"net1\"; it has net0 (0000:01:00.0)")
    );
}

#[test]
fn a_guest_that_cannot_be_meant_is_told_by_its_code() {
    let folder = folder();
    let refused = |line: &str| ctl(&folder, line).expect_err(line);
    assert_eq!(refused("pause").0, 3);
    let (code, message) = refused("web pause");
    assert_eq!(code, 3);
    assert_eq!(
        message,
        "web: no guest of this name is running; `strait ctl list` shows those of yours that are, `sudo strait ctl list` root's"
    );
    let (code, message) = refused("/nonexistent/web pause");
    assert_eq!(code, 3);
    assert!(
        message.starts_with("/nonexistent/web: no guest listens there: No such file"),
        "{message}"
    );
    assert_eq!(refused("we:b pause").0, 2);
    let (code, message) = refused("web");
    assert_eq!(code, 2);
    assert!(
        message
            .starts_with("ctl web: no command follows, and \"web\" is none; the commands are list, info, ")
    );
    FakeGuest::start(folder.path(), "a", vec![]);
    FakeGuest::start(folder.path(), "b", vec![]);
    let (code, message) = refused("pause");
    assert_eq!(code, 2);
    assert!(
        message.contains("several are running: a, b; name one, as in `strait ctl a info`"),
        "{message}"
    );
}

/// What comes of this at the other end of a connection.
fn opened(said: &[u8], hangs_up: bool) -> Trouble {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(said).expect("room");
    let theirs = (!hangs_up).then_some(theirs);
    let trouble = Connection::over(ours, "web", Duration::from_millis(50))
        .err()
        .expect("no guest");
    drop(theirs);
    trouble
}

#[test]
fn what_is_no_guest_is_told_from_one_that_is_gone_or_silent() {
    assert!(matches!(opened(b"", true), Trouble::Gone(_)));
    assert!(matches!(opened(b"", false), Trouble::Silent(..)));
    assert!(matches!(opened(b"{\"QMP\": ", false), Trouble::Silent(..)));
    for foreign in [
        "SSH-2.0\r\n",
        "[]\n",
        "{}\n",
        "{\"event\": 1}\n",
        "{\"return\": {}}\n",
        "\u{0}\n",
    ] {
        assert!(
            matches!(opened(foreign.as_bytes(), false), Trouble::Foreign(_)),
            "{foreign}"
        );
    }
    // A guest that greets and says no more.
    assert!(matches!(
        opened(format!("{GREETING}\n").as_bytes(), false),
        Trouble::Silent(..)
    ));
}

#[test]
fn a_refusal_is_told_in_the_guests_words_without_what_would_steer_the_terminal() {
    let folder = folder();
    let refusal = json!({"error": {"class": "GenericError", "desc": "it is\u{1b}[2J busy"}});
    FakeGuest::start(folder.path(), "web", vec![("stop", vec![refusal])]);
    let (code, message) = ctl(&folder, "web pause").expect_err("refused");
    assert_eq!((code, message.as_str()), (1, "web: it is [2J busy"));
}

//! `strait run --qmp`, as QEMU's tools meet it: lines at a guest of a few instructions.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

mod tiny;

use tiny::{LIMIT, code_of, until};

/// again: jmp again
const LOOP: &[u8] = &[0xeb, 0xfe];

struct Guest {
    strait: Child,
    folder: TempDir,
}

impl Guest {
    /// `None`, which is said, where there is no KVM.
    fn start(options: &[&str]) -> Option<Self> {
        let folder = tiny::folder(LOOP)?;
        let kernel = folder.path().join("tiny");
        let strait = Command::new(env!("CARGO_BIN_EXE_strait"))
            .args(["run", "--memory", "64M", "--cpus", "2", "--kernel"])
            .arg(&kernel)
            .arg("--qmp")
            .arg(folder.path().join("qmp"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let guest = Self { strait, folder };
        let socket = guest.folder.path().join("qmp");
        until("somebody listens", || UnixStream::connect(&socket).is_ok());
        Some(guest)
    }

    fn line(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("qmp")).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a socket");
        stream
    }

    /// A client that has said qmp_capabilities.
    fn client(&self) -> Qmp {
        let mut client = Qmp(BufReader::new(self.line()));
        assert!(client.next()["QMP"]["version"]["qemu"]["major"].is_u64());
        assert_eq!(client.ask("qmp_capabilities"), json!({"return": {}}));
        client
    }

    fn code(&mut self) -> Option<i32> {
        code_of(&mut self.strait)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.strait.kill();
        let _ = self.strait.wait();
    }
}

struct Qmp(BufReader<UnixStream>);

impl Qmp {
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("it listens");
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON")
    }

    fn ask(&mut self, command: &str) -> Value {
        self.say(&format!("{{\"execute\": \"{command}\"}}\n"));
        self.next()
    }

    fn event(&mut self) -> String {
        let event = self.next();
        assert!(event["timestamp"]["microseconds"].is_u64(), "{event}");
        event["event"].as_str().unwrap_or_default().to_owned()
    }

    fn class(&mut self, line: &str) -> String {
        self.say(line);
        let answer = self.next();
        answer["error"]["class"].as_str().expect("an error").to_owned()
    }
}

#[test]
fn a_guest_is_paused_goes_on_is_reset_and_ends() {
    let Some(mut guest) = Guest::start(&[]) else {
        return;
    };
    let mode = fs::metadata(guest.folder.path().join("qmp"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (mut client, mut other) = (guest.client(), guest.client());
    assert_eq!(
        client.ask("query-status")["return"],
        json!({"status": "running", "running": true})
    );
    assert_eq!(client.ask("stop")["event"], "STOP");
    assert_eq!(client.next(), json!({"return": {}}));
    assert_eq!(other.event(), "STOP");
    assert_eq!(
        client.ask("stop"),
        json!({"return": {}}),
        "it stands still already"
    );
    assert_eq!(other.ask("query-status")["return"]["status"], "paused");
    assert_eq!(client.ask("system_reset")["event"], "RESET");
    assert_eq!(client.next(), json!({"return": {}}));
    assert_eq!(
        client.ask("query-status")["return"]["status"],
        "paused",
        "a reset does not let it go"
    );
    assert_eq!(client.ask("cont")["event"], "RESUME");
    assert_eq!(client.next(), json!({"return": {}}));
    assert_eq!(client.ask("cont"), json!({"return": {}}));
    let cpus = client.ask("query-cpus-fast");
    assert_eq!(cpus["return"].as_array().map(Vec::len), Some(2));
    assert_ne!(cpus["return"][0]["thread-id"], cpus["return"][1]["thread-id"]);
    assert!(client.ask("query-pci")["return"][0]["devices"][0]["id"]["vendor"].is_u64());
    assert!(client.ask("x-query-strait")["return"]["locked-bytes"].is_u64());
    assert_eq!(client.ask("quit"), json!({"return": {}}));
    let end = client.next();
    assert_eq!(end["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
    assert_eq!(guest.code(), Some(0));
    assert!(!guest.folder.path().join("qmp").exists());
}

#[test]
fn what_is_wrong_is_refused_by_its_class_and_the_next_command_is_heard() {
    let Some(guest) = Guest::start(&[]) else { return };
    let mut client = Qmp(BufReader::new(guest.line()));
    client.next();
    assert_eq!(
        client.class("{\"execute\": \"stop\"}\n"),
        "CommandNotFound",
        "capabilities come first"
    );
    client.ask("qmp_capabilities");
    assert_eq!(
        client.class("{\"execute\": \"qmp_capabilities\"}\n"),
        "CommandNotFound"
    );
    assert_eq!(client.class("{\"execute\": \"migrate\"}\n"), "CommandNotFound");
    assert_eq!(client.class("nonsense\n"), "GenericError");
    assert_eq!(
        client.class("{\"execute\": \"stop\", \"arguments\": {\"x\": 1}}\n"),
        "GenericError"
    );
    assert_eq!(client.class(&format!("{}\n", "[".repeat(10_000))), "GenericError");
    assert_eq!(
        client.class(&format!("{}\n", "x".repeat(64 << 20))),
        "GenericError"
    );
    client.say("{\"execute\": \"query-status\", \"id\": 1}\n{\"execute\": \"stop\", \"id\": 2}\n{\"execute\": \"cont\", \"id\": 3}\n");
    let told: Vec<Value> = (0..5).map(|_| client.next()).collect();
    let ids: Vec<&Value> = told.iter().filter_map(|line| line.get("id")).collect();
    assert_eq!(ids, [&json!(1), &json!(2), &json!(3)]);
    // QEMU's own client ends no line.
    client.say("{\"execute\": \"query-status\", \"id\": 4}{\n\"execute\":\n\"query-version\", \"id\": 5}");
    assert_eq!([client.next()["id"].take(), client.next()["id"].take()], [4, 5]);
    client.say("{\"execute\": ");
    sleep(Duration::from_millis(50));
    client.say("\"query-status\"}\n");
    assert_eq!(client.next()["return"]["running"], true);
}

#[test]
fn a_thousand_connections_and_one_that_does_not_read_leave_the_rest_as_it_was() {
    let Some(guest) = Guest::start(&[]) else { return };
    let mut client = guest.client();
    let lines: Vec<UnixStream> = (0..1000)
        .filter_map(|_| UnixStream::connect(guest.folder.path().join("qmp")).ok())
        .collect();
    assert_eq!(client.ask("query-status")["return"]["running"], true);
    drop(lines);
    let mut deaf = guest.client();
    let call = "{\"execute\": \"query-commands\"}\n".repeat(1000);
    let stream = deaf.0.get_mut();
    stream.set_write_timeout(Some(LIMIT)).expect("a socket");
    let hung_up = (0..1000).any(|_| stream.write_all(call.as_bytes()).is_err());
    assert!(hung_up, "it is dropped");
    let _ = stream.read(&mut [0; 16]);
    assert_eq!(client.ask("query-status")["return"]["running"], true);
}

#[test]
fn a_signal_ends_a_guest_that_is_paused() {
    let Some(mut guest) = Guest::start(&[]) else {
        return;
    };
    let mut client = guest.client();
    client.ask("stop");
    client.next();
    let pid = guest.strait.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    assert_eq!(client.next()["data"]["reason"], "host-signal");
    assert_eq!(guest.code(), Some(0));
}

#[test]
fn devices_that_cannot_come_or_go_are_refused_with_the_reason() {
    let missing =
        "{\"execute\": \"device_add\", \"arguments\": {\"host\": \"ffff:1f:1f.7\", \"id\": \"nic\"}}\n";
    let refusal = |client: &mut Qmp, line: &str| {
        client.say(line);
        client.next()["error"]["desc"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let Some(guest) = Guest::start(&[]) else { return };
    assert!(refusal(&mut guest.client(), missing).contains("--hotplug-slots"));
    let Some(guest) = Guest::start(&["--hotplug-slots", "2"]) else {
        return;
    };
    let mut client = guest.client();
    let no_such = refusal(&mut client, missing);
    assert!(no_such.contains("ffff:1f:1f.7"), "{no_such}");
    let nothing = refusal(&mut client, "{\"execute\": \"device_add\"}\n");
    assert!(nothing.contains("no device is named"), "{nothing}");
    let unknown = "{\"execute\": \"device_del\", \"arguments\": {\"id\": \"nic\"}}\n";
    assert_eq!(client.class(unknown), "DeviceNotFound");
    // Nothing of what failed is kept, and no thread.
    until("the porter has gone", || {
        let threads = fs::read_dir(format!("/proc/{}/task", guest.strait.id())).expect("it runs");
        let mut names = threads
            .flatten()
            .map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap_or_default());
        !names.any(|name| name.trim() == "porter")
    });
    assert_eq!(client.ask("query-status")["return"]["running"], true);
}

#[test]
fn a_power_button_that_nobody_hears_ends_nothing_before_its_time() {
    let Some(mut guest) = Guest::start(&["--stop-timeout", "2"]) else {
        return;
    };
    let mut client = guest.client();
    assert_eq!(client.ask("system_powerdown")["event"], "POWERDOWN");
    assert_eq!(client.next(), json!({"return": {}}));
    let pid = guest.strait.id().to_string();
    let begin = Instant::now();
    assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    assert_eq!(client.event(), "POWERDOWN");
    assert_eq!(client.ask("query-status")["return"]["running"], true);
    assert_eq!(client.next()["data"]["reason"], "host-signal");
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert_eq!(guest.code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_guest_that_has_time_left() {
    let Some(mut guest) = Guest::start(&["--stop-timeout", "86400"]) else {
        return;
    };
    let mut client = guest.client();
    let pid = guest.strait.id().to_string();
    let signal = || assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    signal();
    // The second would be one with a first that has not been taken yet (signal(7)).
    assert_eq!(client.event(), "POWERDOWN");
    signal();
    assert_eq!(client.next()["data"]["reason"], "host-signal");
    assert_eq!(guest.code(), Some(0));
}

/// A client that hung up is owed an answer all the same; what was done for it is undone, and its line closed.
#[test]
fn clients_that_hang_up_before_their_answer_leave_nothing_open() {
    let Some(guest) = Guest::start(&["--hotplug-slots", "1"]) else {
        return;
    };
    let mut client = guest.client();
    let files = || fs::read_dir(format!("/proc/{}/fd", guest.strait.id())).map_or(0, Iterator::count);
    let before = files();
    for _ in 0..200 {
        let mut other = guest.client();
        other.say("{\"execute\": \"device_add\", \"arguments\": {\"host\": \"ffff:1f:1f.7\"}}\n");
        other.say("{\"execute\": \"stop\"}\n");
    }
    until("their lines are closed", || {
        client.ask("query-status");
        files() == before
    });
}

//! `strait run --status` and NOTIFY_SOCKET, as a program or a service manager that starts a guest meets them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

mod tiny;

use tiny::{LIMIT, code_of};

/// again: jmp again
const LOOP: &[u8] = &[0xeb, 0xfe];

/// A guest with a name, whose shell has opened descriptor 3 as `redirection` says.
fn start(folder: &TempDir, options: &str, redirection: &str) -> Child {
    let script = format!("exec $STRAIT run --memory 64M --name web --kernel tiny {options} {redirection}");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .current_dir(folder)
        .env("STRAIT", env!("CARGO_BIN_EXE_strait"));
    shell
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("NOTIFY_SOCKET", folder.path().join("notify"));
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn ctl(folder: &TempDir, command: &str) {
    let mut strait = Command::new(env!("CARGO_BIN_EXE_strait"));
    strait
        .args(["ctl", "web", command])
        .env("XDG_RUNTIME_DIR", folder.path());
    assert!(strait.status().expect("it starts").success(), "{command}");
}

/// The next line: an event with its data.
fn next(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> (String, Value) {
    let line = lines.next().expect("a line").expect("text");
    let mut event: Value = serde_json::from_str(&line).expect("JSON");
    let name = event["event"].as_str().expect("a name").to_owned();
    (name, event["data"].take())
}

#[test]
fn a_program_and_a_service_manager_hear_where_the_run_stands() {
    let Some(folder) = tiny::folder(LOOP) else { return };
    let manager = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(LIMIT)).expect("a socket");
    let heard = || {
        let mut bytes = [0; 64];
        let len = manager.recv(&mut bytes).expect("it is told");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let (reader, writer) = UnixStream::pair().expect("a pair");
    reader.set_read_timeout(Some(LIMIT)).expect("a socket");
    let (output, mut lines) = (
        Stdio::from(std::os::fd::OwnedFd::from(writer)),
        BufReader::new(reader).lines(),
    );
    // Standard error is a descriptor that is at hand here.
    let mut shell = Command::new(env!("CARGO_BIN_EXE_strait"));
    shell.args([
        "run", "--memory", "64M", "--name", "web", "--status", "2", "--kernel",
    ]);
    shell
        .arg(folder.path().join("tiny"))
        .env("XDG_RUNTIME_DIR", folder.path());
    shell
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut guest = shell.stderr(output).spawn().expect("it starts");
    drop(shell);
    let pid = guest.id();
    assert_eq!(next(&mut lines), ("prepared".to_owned(), json!({"pid": pid})));
    let (name, data) = next(&mut lines);
    let socket = folder.path().join("strait/web.sock");
    assert_eq!(name, "started");
    assert_eq!(
        data,
        json!({"name": "web", "pid": pid, "socket": socket, "devices": []})
    );
    assert_eq!(heard(), "READY=1");
    ctl(&folder, "pause");
    assert_eq!(next(&mut lines).0, "paused");
    ctl(&folder, "resume");
    assert_eq!(next(&mut lines).0, "resumed");
    ctl(&folder, "reset");
    ctl(&folder, "quit");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(
        next(&mut lines),
        (
            "stopped".to_owned(),
            json!({"reason": "host-qmp-quit", "code": 0})
        )
    );
    assert!(lines.next().is_none());
    assert_eq!(code_of(&mut guest), Some(0));
}

#[test]
fn a_file_is_written_anew_and_a_descriptor_is_written_on() {
    let Some(folder) = tiny::folder(LOOP) else { return };
    for (options, redirection) in [("--status status", ""), ("--status 3", "3> status")] {
        fs::write(folder.path().join("status"), "of a run before\n").expect("room");
        let mut guest = start(&folder, &format!("{options} --kernel nonsense"), redirection);
        assert_eq!(code_of(&mut guest), Some(2), "an option twice");
        let mut guest = start(&folder, &format!("{options} --initrd nonsense"), redirection);
        assert_eq!(code_of(&mut guest), Some(1));
        let text = fs::read_to_string(folder.path().join("status")).expect("text");
        let stopped: Value = serde_json::from_str(&text).expect("one line");
        assert_eq!(stopped["event"], "stopped");
        assert_eq!(
            (&stopped["data"]["reason"], &stopped["data"]["code"]),
            (&json!("host-error"), &json!(1))
        );
        let message = stopped["data"]["message"].as_str().expect("why");
        assert!(
            message.starts_with("cannot read the initrd nonsense"),
            "{message}"
        );
    }
    let mut guest = start(&folder, "--status 9", "");
    assert_eq!(code_of(&mut guest), Some(2), "it is not open");
}

#[test]
fn a_reader_that_is_gone_does_not_end_the_guest() {
    let Some(folder) = tiny::folder(LOOP) else { return };
    let pipe = folder.path().join("status");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("mkfifo")
            .success()
    );
    let mut guest = start(&folder, "--status status", "");
    // It is not waited for, either.
    let mut lines = BufReader::new(fs::File::open(&pipe).expect("a pipe")).lines();
    assert_eq!(next(&mut lines).0, "prepared");
    assert_eq!(next(&mut lines).0, "started");
    drop(lines);
    ctl(&folder, "pause");
    ctl(&folder, "resume");
    ctl(&folder, "quit");
    assert_eq!(code_of(&mut guest), Some(0));
}

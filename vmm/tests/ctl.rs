//! `strait ctl`, as a shell sees it: what it prints, its exit code, and what becomes of a guest of a few instructions.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

mod tiny;

use tiny::{code_of, until};

/// again: jmp again
const LOOP: &[u8] = &[0xeb, 0xfe];

/// Guests of one user, whose folder this is.
struct User(TempDir);

struct Guest(Child);

impl User {
    /// `None`, which is said, where there is no KVM.
    fn new() -> Option<Self> {
        tiny::folder(LOOP).map(Self)
    }

    fn strait(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
        command.env("XDG_RUNTIME_DIR", self.0.path()).stdin(Stdio::null());
        command
    }

    fn start(&self, name: &str) -> Guest {
        let mut strait = self.strait();
        strait.args([
            "run", "--memory", "64M", "--cpus", "2", "--name", name, "--kernel",
        ]);
        strait.arg(self.0.path().join("tiny")).stdout(Stdio::null());
        let guest = Guest(strait.spawn().expect("it starts"));
        let socket = self.socket(name);
        until("somebody listens", || UnixStream::connect(&socket).is_ok());
        guest
    }

    fn socket(&self, name: &str) -> String {
        let socket = self.0.path().join(format!("strait/{name}.sock"));
        socket.display().to_string()
    }

    fn ctl(&self, line: &str) -> (Option<i32>, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .strait()
            .arg("ctl")
            .args(line.split(' '))
            .output()
            .expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code(), text(&stdout), text(&stderr))
    }

    /// What a command prints that is done.
    fn done(&self, line: &str) -> String {
        let (code, out, said) = self.ctl(line);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{line}");
        out
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(line)).expect("JSON")
    }
}

impl Guest {
    fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args([name, &self.0.id().to_string()])
            .status();
        assert!(kill.expect("kill").success());
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_guest_with_a_name_is_found_paused_reset_and_ended() {
    let Some(user) = User::new() else { return };
    let mut guest = user.start("web");
    let mode = |path: &str| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&user.0.path().join("strait").display().to_string()), 0o700);
    assert_eq!(mode(&user.socket("web")), 0o600);
    user.done("pause");
    let listed = user.json("list --json");
    assert_eq!(listed[0]["name"], "web");
    assert_eq!(listed[0]["status"], "paused");
    assert_eq!(listed[0]["pid"], guest.0.id());
    assert_eq!(listed[0]["memory_bytes"], 64 << 20);
    assert_eq!(user.done("names"), "web\tpaused\n");
    user.done("web reset");
    user.done("web resume");
    let info = user.json(&format!("{} info --json", user.socket("web")));
    assert_eq!(
        (&info["status"], &info["devices"]),
        (&json!("running"), &json!([]))
    );
    assert_eq!(info["cpu_threads"].as_array().map(Vec::len), Some(2));
    assert!(user.done("info").contains("\n  memory   64 MiB\n"));
    let stats = user.json("stats --json");
    assert!(
        stats["process"]["threads"]
            .as_array()
            .is_some_and(|threads| threads.len() >= 3),
        "{stats}"
    );
    // Linux 5.14 and newer.
    if !stats["kvm"].is_null() {
        assert_eq!(stats["kvm"]["vcpus"].as_array().map(Vec::len), Some(2));
        assert!(
            stats["kvm"]["vcpus"][0]["counts"]["exits"]
                .as_u64()
                .is_some_and(|exits| exits > 0),
            "{stats}"
        );
        assert!(user.done("stats").contains("vCPUs together\n"));
    }
    user.done("web quit");
    let ended = guest
        .0
        .try_wait()
        .expect("a child")
        .and_then(|status| status.code());
    assert_eq!(ended, Some(0), "it has ended when quit returns");
    assert!(!Path::new(&user.socket("web")).exists());
    assert_eq!(user.json("list --json"), json!([]));
}

#[test]
fn a_name_is_one_guests_and_what_a_killed_one_left_is_nobodys() {
    let Some(user) = User::new() else { return };
    let mut guest = user.start("web");
    let mut second = user.strait();
    second
        .args(["run", "--name", "web", "--kernel"])
        .arg(user.0.path().join("tiny"));
    let said = second.output().expect("it starts");
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.starts_with("strait: --name web: a guest of this name is running; give another"),
        "{said}"
    );
    guest.signal("-KILL");
    assert_eq!(code_of(&mut guest.0), None, "the signal ended it");
    assert!(Path::new(&user.socket("web")).exists(), "nobody took it away");
    assert_eq!(user.json("list --json"), json!([]));
    let (code, _, said) = user.ctl("web pause");
    assert_eq!(code, Some(3), "{said}");
    let _again = user.start("web");
    until("the new one listens", || user.ctl("web pause").0 == Some(0));
}

#[test]
fn guests_are_told_apart() {
    let Some(user) = User::new() else { return };
    let _guests = [user.start("a"), user.start("b")];
    let (code, _, said) = user.ctl("pause");
    assert_eq!(code, Some(2));
    assert!(said.contains("several are running: a, b; name one"), "{said}");
    user.done("b pause");
    assert_eq!(user.done("names"), "a\trunning\nb\tpaused\n");
    let (code, _, said) = user.ctl("a detach net0");
    assert_eq!(
        (code, said.as_str()),
        (Some(1), "strait: a: it has no device \"net0\"; it has none\n")
    );
}

#[test]
fn a_guest_that_stands_still_does_not_answer_and_is_listed() {
    let Some(user) = User::new() else { return };
    let guest = user.start("web");
    user.done("web info");
    guest.signal("-STOP");
    let (code, _, said) = user.ctl("web pause");
    guest.signal("-CONT");
    assert_eq!(code, Some(5), "{said}");
    assert!(
        said.contains("web: it gave no answer in 10s; it is being started yet, or its"),
        "{said}"
    );
    user.done("web quit");
}

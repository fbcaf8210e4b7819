//! The program itself, as a shell sees it: what it prints, where, and its exit code.

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

fn strait(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command.args(words).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_was_asked_for_and_cannot_be_printed_is_a_failure() {
    for words in [
        &["completions", "bash"][..],
        &["--help"],
        &["run", "--device", "help"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux");
        let output = strait(words).stdout(full).output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            said(&output).starts_with("strait: cannot write to standard output: No space left"),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = strait(&["completions", "bash"])
        .stdout(writer)
        .output()
        .expect("it starts");
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));
}

#[test]
fn manual_pages_that_cannot_be_written_are_told_with_their_folder() {
    let output = strait(&["man", "/proc/nowhere"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).starts_with("strait: cannot write the manual pages to /proc/nowhere: "),
        "{}",
        said(&output)
    );
}

//! The program itself, as a shell sees it: what it refuses, and its exit code.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use strait_bench::{Better, Metric, Report};

fn bench(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait-bench"));
    command.args(words).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A report of one round in this folder.
fn report(folder: &Path) -> String {
    let path = folder.join("bench.json");
    let mut report = Report::new("qemu");
    let wall = report.metric(Metric::new("start.wall", "start", "s", Better::Lower));
    wall.add("strait", 1.0);
    wall.add("qemu", 2.0);
    report.is_complete = true;
    report.write(&path).expect("two files");
    path.to_string_lossy().into_owned()
}

#[test]
fn one_round_is_shown_and_compared_without_a_verdict() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = report(folder.path());
    let shown = bench(&["--show", &path]).output().expect("it starts");
    assert!(shown.status.success(), "{}", said(&shown));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("0.50 of qemu"));
    let compared = bench(&["--compare", &path, &path]).output().expect("it starts");
    assert!(compared.status.success(), "{}", said(&compared));
    assert!(String::from_utf8_lossy(&compared.stdout).starts_with("cannot tell"));
}

#[test]
fn what_is_no_report_or_one_of_another_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = report(folder.path());
    let whole = fs::read_to_string(&path).expect("a report");
    for (text, why) in [
        ("{}".to_owned(), "is no report"),
        (whole[..whole.len() / 2].to_owned(), "is no report"),
        (
            whole.replace("\"schema\": 1", "\"schema\": 2"),
            "has version 2 of the schema",
        ),
    ] {
        fs::write(&path, text).expect("a file");
        for words in [&["--show", &path][..], &["--compare", &path, &path]] {
            let output = bench(words).output().expect("it starts");
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains(why), "{}", said(&output));
        }
    }
}

#[test]
fn a_table_that_nobody_takes_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = report(folder.path());
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    for out in [Stdio::from(full), Stdio::from(writer)] {
        let output = bench(&["--show", &path]).stdout(out).output().expect("it starts");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains("cannot write to standard output"),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn a_report_that_cannot_be_written_is_shown_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = report(folder.path());
    let output = bench(&["--show", &path, "--report", "/proc/bench"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("make room, or choose another folder"),
        "{}",
        said(&output)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("0.50 of qemu"));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    for words in [
        &["--rounds", "3"][..],
        &["--device", "01:00.0", "--show", "x"],
        &["--device", "01:00.0", "--rounds", "0"],
        &["--device", "01:00.0", "--kernel", "x"],
        &["--device", "01:00.0", "--peer", "bochs=/x"],
        &["--show", "x", "--peer", "crosvm=/x"],
    ] {
        let output = bench(words).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
    }
}

#[test]
fn the_page_has_every_option_and_no_other() {
    let help = bench(&["--help"]).output().expect("it starts");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let page = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../resources/docs/measuring.md"
    ));
    let page = page.expect("the page");
    let lines = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("--"));
    let options: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(options.len() >= 9, "{help}");
    let named = page.split('`').filter(|span| span.starts_with("--"));
    for name in named.filter_map(|span| span.split(' ').next()) {
        assert!(name == "--help" || options.contains(&name), "{name} is no option");
    }
    for option in options {
        assert!(
            page.contains(&format!("`{option}")),
            "{option} is not on the page"
        );
    }
}

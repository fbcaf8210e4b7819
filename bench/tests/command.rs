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
fn a_value_that_cannot_be_meant_is_refused_in_one_line() {
    for (words, line) in [
        (
            &["--device", "x", "--limit", "soon"][..],
            "--limit soon: is not a whole number from 1 to 86400;",
        ),
        (
            &["--device", "x", "--rounds", "0"],
            "--rounds 0: is not a whole number from 1 to 1000;",
        ),
        (
            &["--device", "x", "--peer", "bochs=/\u{1b}[2J"],
            "--peer bochs=/ [2J: `bochs` is none of strait, qemu,",
        ),
        (&["--devise", "x"], "unexpected argument '--devise' found;"),
    ] {
        let output = bench(words).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        let said = said(&output);
        assert!(said.starts_with(&format!("strait-bench: {line}")), "{said}");
        assert!(said.ends_with("; `strait-bench --help` explains\n"), "{said}");
        assert_eq!(said.matches(char::is_control).count(), 1, "{said:?}");
    }
}

#[test]
fn a_comparison_tells_what_is_doubtful_and_refuses_what_has_nothing_in_common() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = report(folder.path());
    let whole = fs::read_to_string(&path).expect("a report");
    let other = folder.path().join("other.json");
    let (old, new) = (path.as_str(), other.to_string_lossy().into_owned());
    fs::write(
        &other,
        whole.replace("\"is_complete\": true", "\"is_complete\": false"),
    )
    .expect("a file");
    let output = bench(&["--compare", old, &new]).output().expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("NEW is a part: "));

    fs::write(&other, whole.replace("start.wall", "start.other")).expect("a file");
    let output = bench(&["--compare", old, &new]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).ends_with("no figure in common; compare reports of the same measurement\n"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_shell_is_offered_every_option_and_devices_where_one_is_meant() {
    for shell in ["bash", "zsh", "fish"] {
        let output = bench(&["completions", shell]).output().expect("it starts");
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            script.contains("compare") && script.contains("initrd") && script.contains("strait host names"),
            "{script}"
        );
    }
    assert_eq!(
        bench(&["completions", "tcsh"])
            .status()
            .expect("it starts")
            .code(),
        Some(2)
    );
    assert_eq!(
        offered("strait-bench --device "),
        "0000:01:00.0 enp3s0 0000:02:00.0"
    );
    assert_eq!(offered("strait-bench --device 02"), "02:00.0");
    assert_eq!(offered("strait-bench --device=01:"), "00.0");
    assert_eq!(offered("strait-bench --init"), "--initrd");
}

/// What bash offers for the last word of `line`, on a host with a NIC and a disk.
fn offered(line: &str) -> String {
    let script = bench(&["completions", "bash"]).output().expect("it starts");
    let script = [
        r"strait() { printf '0000:01:00.0\tNIC\nenp3s0\tNIC\n0000:02:00.0\tNVMe\n'; }",
        &String::from_utf8_lossy(&script.stdout),
        r#"
        COMP_LINE=$1 COMP_POINT=${#1}
        read -ra COMP_WORDS <<< "$1"
        [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _strait_bench_with_devices strait-bench "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}""#,
    ]
    .join("\n");
    let bash = Command::new("bash").args(["-c", &script, "bash", line]).output();
    String::from_utf8_lossy(&bash.expect("bash").stdout)
        .trim()
        .to_owned()
}

#[test]
fn the_manual_page_has_every_option() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("man1");
    let output = bench(&["man", &place.to_string_lossy()])
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
    let page = fs::read_to_string(place.join("strait-bench.1")).expect("a page");
    assert!(
        page.contains(".SH NAME") && page.contains(r"\-\-initrd"),
        "{page}"
    );
    let output = bench(&["man", "/proc/man1"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).starts_with("strait-bench: /proc/man1: the manual page cannot be written"),
        "{}",
        said(&output)
    );
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

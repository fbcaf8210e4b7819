//! A report as a file of JSON.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::html::html;
use crate::report::Report;

/// The version of what is in the file. It grows when a reader of the old one would misunderstand the new one.
pub const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    schema: u32,
    #[serde(flatten)]
    report: &'a Report,
}

/// What is asked of a file before the rest of it is believed.
#[derive(Deserialize)]
struct Head {
    schema: u32,
}

/// A report that cannot be read or written.
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be opened or read.
    Read(PathBuf, io::Error),
    /// It is not a report.
    Content(PathBuf, serde_json::Error),
    /// It is one of another version.
    Version(PathBuf, u32),
    /// It cannot be written.
    Write(PathBuf, io::Error),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "{}: cannot be read: {error}", path.display()),
            Self::Content(path, error) => {
                write!(f, "{}: is no report of strait-bench: {error}", path.display())
            }
            Self::Version(path, found) => write!(
                f,
                "{}: has version {found} of the schema, not {SCHEMA}; measure again, or use the strait-bench that wrote it",
                path.display()
            ),
            Self::Write(path, error) => {
                write!(
                    f,
                    "{}: cannot be written: {error}; make room, or choose another folder",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for FileError {}

impl Report {
    /// Reads a report of this schema, whoever wrote it: no word in it does anything to a terminal.
    ///
    /// # Errors
    /// When there is none, or one of another version.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read(path).map_err(|error| FileError::Read(path.to_owned(), error))?;
        let content = |error| FileError::Content(path.to_owned(), error);
        let told: Value = serde_json::from_slice(&text).map_err(content)?;
        let told = harmless(told);
        let Head { schema } = Head::deserialize(&told).map_err(content)?;
        if schema != SCHEMA {
            return Err(FileError::Version(path.to_owned(), schema));
        }
        let report = Self::deserialize(told).map_err(content)?;
        match report.contradiction() {
            Some(wrong) => Err(content(serde::de::Error::custom(wrong))),
            None => Ok(report),
        }
    }

    /// Writes the report, and beside it the page for people, `bench.html` beside `bench.json`. Folders are made, and
    /// each file is put in the old one's place, so that there is always a whole one.
    ///
    /// # Errors
    /// When a file cannot be written; then what stood there before is still there.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let text = self
            .json()
            .map_err(|error| FileError::Write(path.to_owned(), error.into()))?;
        replace(path, &text)?;
        replace(&path.with_extension("html"), html(self).as_bytes())
    }

    /// What stands in the file of JSON.
    fn json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(&Written {
            schema: SCHEMA,
            report: self,
        })
    }
}

/// The same without the characters that a terminal obeys, or that turn the direction of what stands behind them. What is
/// read is nested no deeper than serde_json reads, 128.
fn harmless(told: Value) -> Value {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = |text: String| text.replace(|c: char| c.is_control() || turns(c), " ");
    match told {
        Value::String(text) => Value::String(plain(text)),
        Value::Array(all) => Value::Array(all.into_iter().map(harmless).collect()),
        Value::Object(all) => {
            let plain = all
                .into_iter()
                .map(|(name, value)| (plain(name), harmless(value)));
            Value::Object(plain.collect())
        }
        other => other,
    }
}

/// Writes beside the file and then puts it in place: a full disk leaves the old one whole.
fn replace(path: &Path, text: &[u8]) -> Result<(), FileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::File::create(&beside))
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // It is the first error that counts.
        let _ = fs::remove_file(&beside);
        FileError::Write(path.to_owned(), error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Better, Metric};

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let mut report = Report::new("qemu");
        let metric =
            report.metric(Metric::new("start.wall", "start", "s", Better::Lower).floor("probe", 0.5));
        metric.add("strait", 1.25);
        metric.fail("qemu", "it hung");
        report.write(&path).expect("a file");
        assert_eq!(Report::read(&path).expect("a report"), report);
    }

    #[test]
    fn the_page_stands_beside_the_figures_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("new");
        Report::new("qemu")
            .write(&inside.join("bench.json"))
            .expect("two files");
        let page = fs::read_to_string(inside.join("bench.html")).expect("a page");
        assert!(page.ends_with("</html>\n"), "{page}");
        assert_eq!(fs::read_dir(&inside).expect("a folder").count(), 2);
    }

    #[test]
    fn another_version_is_refused_even_where_nothing_else_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        fs::write(&path, r#"{"schema": 7, "other": []}"#).expect("a file");
        let error = Report::read(&path).expect_err("another version").to_string();
        assert!(error.contains("has version 7 of the schema, not 1;"), "{error}");
    }

    #[test]
    fn what_is_no_report_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        fs::write(&path, "[]").expect("a file");
        let error = Report::read(&path).expect_err("no report").to_string();
        assert!(error.contains("is no report"), "{error}");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let mut report = Report::new("qemu");
        report.warnings.push("\u{1b}]0;title\u{7}\u{9b}2J".to_owned());
        let metric = report.metric(Metric::new("a.b", "a\nb", "\r", Better::Lower));
        metric.fail("str\u{1b}ait", "it\u{7f} hung");
        report.write(&path).expect("a file");
        let read = Report::read(&path).expect("a report");
        assert_eq!(read.warnings, [" ]0;title  2J"]);
        assert_eq!(
            (read.metrics[0].title.as_str(), read.metrics[0].unit.as_str()),
            ("a b", " ")
        );
        assert_eq!(read.metrics[0].unmeasured["str ait"], "it  hung");

        let text = fs::read_to_string(&path).expect("a file");
        fs::write(&path, text.replace("\"lower\"", r#""\u001b[31m""#)).expect("a file");
        let error = Report::read(&path).expect_err("no such way").to_string();
        assert!(
            error.contains("[31m") && !error.contains(char::is_control),
            "{error:?}"
        );
    }

    #[test]
    fn what_no_run_writes_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let read = |report: &Report| {
            // Without the page: statistics of 300,000 rounds take minutes.
            fs::write(&path, report.json().expect("text")).expect("a file");
            Report::read(&path).map_err(|error| error.to_string())
        };
        let metric = |id: &str| Metric::new(id, "", "", Better::Lower);
        for wholes in ["none", "self"] {
            let mut report = Report::new("qemu");
            report.metric(metric("self").part_of(wholes));
            let error = read(&report).expect_err("shown nowhere");
            assert!(
                error.contains(&format!("`self` is a part of `{wholes}`, which is no whole")),
                "{error}"
            );
        }
        let mut report = Report::new("qemu");
        let rounds = report.metric(metric("a")).rounds.entry("qemu".to_owned());
        rounds.or_default().resize(300_000, 1.0);
        assert!(read(&report).is_err_and(|error| error.contains("300000 rounds")));
        report.metrics.clear();
        report.warnings.push("\u{202e}back".to_owned());
        assert_eq!(
            read(&report).map(|read| read.warnings),
            Ok(vec![" back".to_owned()])
        );
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told() {
        let error = Report::new("qemu")
            .write(Path::new("/proc/report.json"))
            .expect_err("nothing can be made there");
        assert!(error.to_string().contains("cannot be written"), "{error}");
        let error = replace(Path::new("/dev/full/report"), b"x").expect_err("a device is no folder");
        assert!(
            error.to_string().contains("make room, or choose another folder"),
            "{error}"
        );
    }
}

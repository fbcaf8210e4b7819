//! Markdown, as far as the pages use it.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the whole project.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package is in the workspace")
        .to_owned()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page of resources/docs.
pub(crate) fn page(name: &str) -> String {
    read(&root().join("resources/docs").join(name))
}

/// The front page and every page of resources/docs, with their paths.
pub(crate) fn all() -> Vec<(PathBuf, String)> {
    let folder = fs::read_dir(root().join("resources/docs")).expect("the folder of the pages");
    let mut paths: Vec<_> = folder.map(|entry| entry.expect("a page").path()).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// What stands below a heading of the second level, which is given with its marks.
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let start = page.find(&format!("\n## {heading}\n"))? + 1;
    let text = &page[start..];
    Some(text[3..].find("\n## ").map_or(text, |end| &text[..end + 3]))
}

/// The cells of each row of the tables in `text`, without their heads.
pub(crate) fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |line: &&str| line.starts_with("| ");
    let is_head = |n: usize| lines.get(n + 1).is_some_and(|next| next.starts_with("|---"));
    let rows = lines
        .iter()
        .enumerate()
        .filter(|(n, line)| is_row(line) && !is_head(*n));
    rows.map(|(_, line)| cells(line)).collect()
}

fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\0");
    let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
    let cells = inside.split('|');
    cells.map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// What stands between backticks within lines, in order.
pub(crate) fn spans(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    for (n, span) in prose.split('`').enumerate() {
        if n % 2 == 1 {
            found.push(span.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

/// Command lines in blocks of code, with those that go on behind a backslash in one piece.
pub(crate) fn blocks(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let (text, more) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
            match lines.last_mut().filter(|_| goes_on) {
                Some(last) => last.push_str(text),
                None => lines.push(text.to_owned()),
            }
            goes_on = more;
        }
    }
    lines
}

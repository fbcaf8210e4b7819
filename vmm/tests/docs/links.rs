//! Pages that are found, and links that lead somewhere.

use std::path::Path;

use crate::pages::{all, page, read, root};

/// Most lines of the front page: what a newcomer reads in a few minutes.
const FRONT_PAGE_LINES: usize = 120;

#[test]
fn the_front_page_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= FRONT_PAGE_LINES, "README.md has {lines} lines");
}

#[test]
fn every_page_is_named_on_the_front_page_and_in_the_index() {
    let (front, index) = (read(&root().join("README.md")), page("README.md"));
    for (path, _) in all() {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if name != "README.md" {
            assert!(front.contains(&format!("](resources/docs/{name})")), "{name}");
            assert!(index.contains(&format!("]({name})")), "{name}");
        }
    }
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut pages = all();
    let architecture = root().join("ARCHITECTURE.md");
    pages.push((architecture.clone(), read(&architecture)));
    let mut count = 0;
    for (path, text) in &pages {
        let folder = path.parent().expect("a page is in a folder");
        for link in links(text) {
            count += 1;
            check(folder, path, link);
        }
    }
    assert!(count > 10, "links are found");
}

fn check(folder: &Path, from: &Path, link: &str) {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        from.to_owned()
    } else {
        folder.join(file)
    };
    assert!(target.exists(), "{}: {link} leads nowhere", from.display());
    if !heading.is_empty() {
        let text = read(&target);
        let found = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .any(|line| anchor(line) == heading);
        assert!(found, "{}: {link} names no heading", from.display());
    }
}

/// Targets of links within the project.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The name of a heading in links: lower case, hyphens for spaces, nothing else but letters and digits.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

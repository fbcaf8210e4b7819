//! The tables of threads and locks in ARCHITECTURE.md name every file that has one.

use std::fs;
use std::path::{Path, PathBuf};

/// Begins a thread.
const THREADS: [&str; 2] = ["thread::spawn(", "thread::Builder"];
/// A field or a static that locks. Guards and arguments are not followed by these.
const LOCKS: [&str; 4] = ["Mutex<", "RwLock<", "OnceLock<", "LazyLock<"];

#[test]
fn every_file_with_a_thread_is_in_the_table() {
    let missing = not_named("Threads", |line| THREADS.iter().any(|word| line.contains(word)));
    assert!(
        missing.is_empty(),
        "threads that ARCHITECTURE.md does not tell of: {missing:?}"
    );
}

#[test]
fn every_file_with_a_lock_is_in_the_table() {
    let missing = not_named("Locks", is_lock);
    assert!(
        missing.is_empty(),
        "locks that ARCHITECTURE.md does not tell of: {missing:?}"
    );
}

#[test]
fn the_tables_name_no_file_that_is_gone() {
    let gone: Vec<_> = ["Threads", "Locks"]
        .iter()
        .flat_map(|title| named(&section(title)))
        .filter(|file| !root().join(file).exists())
        .collect();
    assert!(gone.is_empty(), "{gone:?}");
}

fn is_lock(line: &str) -> bool {
    let is_function = line.contains("fn ") || line.contains("->");
    !is_function && LOCKS.iter().any(|word| line.contains(word))
}

/// Files of the product with a line that counts, and without a place in the section.
fn not_named(title: &str, counts: impl Fn(&str) -> bool) -> Vec<String> {
    let named = named(&section(title));
    assert!(named.len() > 2, "the table was found");
    let sources = ["devices/src", "vfio/src", "vmm/src"].map(|folder| sources(&root().join(folder)));
    let with = sources.into_iter().flatten().filter(|file| {
        let text = fs::read_to_string(file).expect("a source");
        product(&text).any(&counts)
    });
    let name = |file: PathBuf| {
        file.strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string()
    };
    with.map(name).filter(|file| !named.contains(file)).collect()
}

/// Lines of code up to the tests.
fn product(text: &str) -> impl Iterator<Item = &str> {
    let lines = text
        .lines()
        .take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//"))
}

/// Paths between backticks that lead to a source, from the workspace's root.
fn named(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|path| path.contains("/src/") && path.ends_with(".rs"));
    paths.map(str::to_owned).collect()
}

fn section(title: &str) -> String {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the text");
    let start = format!("\n## {title}\n");
    let from = text.split_once(&start).expect("the section").1;
    from.split("\n## ").next().unwrap_or_default().to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && !matches!(&*name, "tests" | "testing") {
            found.extend(sources(&path));
        } else if name.ends_with(".rs")
            && !name.ends_with("tests.rs")
            && !matches!(&*name, "testing.rs" | "mock.rs")
        {
            found.push(path);
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace")
}

//! Messages as the page quotes them, against the sources that say them.

use std::fs;
use std::path::Path;

use strait_vfio::host::{CheckError, HostBdf};

use crate::pages::{page, read, root, rows, spans};

/// Errors that tell a user why something cannot be done. Each of their messages has an entry.
const REFUSALS: [&str; 21] = [
    "BootError",
    "MemorySizeError",
    "MemoryConfigError",
    "PoolError",
    "CpuConfigError",
    "DeviceConfigError",
    "ViommuConfigError",
    "KeyError",
    "HostError",
    "MemoryError",
    "SystemError",
    "RomError",
    "WidthError",
    "ContainerError",
    "GroupError",
    "DeviceError",
    "BindError",
    "LookupError",
    "SriovError",
    "RestoreError",
    "SymbolsError",
];

/// The messages that the page tells of.
fn quotes() -> Vec<String> {
    let page = page("messages.md");
    let quotes: Vec<_> = rows(&page).iter().flat_map(|row| spans(&row[0])).collect();
    assert!(quotes.len() > 50, "messages are found");
    quotes
}

#[test]
fn every_message_that_is_quoted_is_one_of_the_programs() {
    let sources = sources();
    let said: Vec<String> = sources.iter().flat_map(|source| literals(source)).collect();
    for quote in quotes() {
        assert!(
            said.iter().any(|text| text.contains(&quote)),
            "nothing says `{quote}`"
        );
    }
}

#[test]
fn every_refusal_of_a_start_has_an_entry() {
    let (sources, quotes) = (sources(), quotes());
    for name in REFUSALS {
        let messages: Vec<String> = sources.iter().flat_map(|source| messages(source, name)).collect();
        assert!(!messages.is_empty(), "there is no {name} with messages");
        for message in messages {
            let found = quotes.iter().any(|quote| message.contains(quote));
            assert!(found, "{name}: the page does not tell of `{message}`");
        }
    }
}

#[test]
fn everything_that_keeps_a_device_from_being_passed_has_an_entry() {
    let quotes = quotes();
    for refusal in refusals() {
        let fact = refusal.fact();
        let found = quotes.iter().any(|quote| fits(quote, &fact));
        assert!(found, "the page does not tell of `{fact}`");
    }
}

/// Whether `text` has the pieces of `quote`, in their order.
fn fits(quote: &str, text: &str) -> bool {
    let mut rest = text;
    quote.split('…').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// One of each kind.
fn refusals() -> Vec<CheckError> {
    let bdf: HostBdf = "0000:01:00.0".parse().expect("an address");
    let text = || "text".to_owned();
    let source = || std::io::ErrorKind::NotFound.into();
    vec![
        CheckError::Sysfs {
            bdf,
            source: source(),
        },
        CheckError::NoSuchDevice(bdf),
        CheckError::Twice(bdf),
        CheckError::Bridge(bdf),
        CheckError::Behind {
            bdf,
            keeper: bdf,
            driver: text(),
        },
        CheckError::NoIommu { bdf, remedy: text() },
        CheckError::NotBound {
            bdf,
            driver: text(),
            remedy: text(),
        },
        CheckError::NotViable {
            bdf,
            group: 1,
            culprits: text(),
            remedy: text(),
        },
        CheckError::Reserved { bdf, range: (0, 1) },
        CheckError::UnsafeInterrupts { bdf, remedy: text() },
        CheckError::NoVfio("vfio"),
        CheckError::InUse {
            bdf,
            path: text(),
            holder: text(),
        },
        CheckError::Permission { bdf, path: text() },
        CheckError::Open {
            bdf,
            path: text(),
            source: source(),
        },
        CheckError::Memlock { needed: 2, limit: 1 },
    ]
}

/// The program's sources without their tests.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    for package in ["devices", "vfio", "vmm"] {
        collect(&root().join(package).join("src"), &mut found);
    }
    assert!(found.len() > 100, "sources are found");
    found
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a file").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if matches!(name, "tests" | "testing") || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = read(&path);
            let code = text
                .split("\n#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            found.push(code.to_owned());
        }
    }
}

/// What thiserror says for each variant of enum `name`, if it is in `source`.
fn messages(source: &str, name: &str) -> Vec<String> {
    let Some(start) = source.find(&format!("enum {name} {{")) else {
        return Vec::new();
    };
    let body = source[start..].split("\n}").next().unwrap_or_default();
    let attributes = body.split("#[error(").skip(1);
    let said = attributes.filter(|text| !text.starts_with("transparent"));
    said.filter_map(|text| literals(text).into_iter().next())
        .collect()
}

/// The string literals of `source`, with `…` for each value that is filled in.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (mark, behind) = (&rest[at..=at], &rest[at + 1..]);
        rest = match mark {
            "/" if behind.starts_with('/') => behind.split_once('\n').map_or("", |(_, next)| next),
            // A quotation mark as a character, or a byte.
            "'" if behind.starts_with("\"'") => &behind[2..],
            "\"" => {
                let end = end_of(behind);
                found.push(shown(&behind[..end]));
                behind.get(end + 1..).unwrap_or_default()
            }
            _ => behind,
        };
    }
    found
}

/// Where the literal that begins here ends.
fn end_of(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// A literal as it is printed.
fn shown(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let mut text = lines.next().unwrap_or_default().to_owned();
    lines.for_each(|line| text.push_str(line.trim_start()));
    let text = text
        .replace("\\\"", "\"")
        .replace("{{", "\u{1}")
        .replace("}}", "\u{2}");
    let mut filled = String::new();
    for (n, piece) in text.split('{').enumerate() {
        match piece.split_once('}') {
            Some((_, behind)) if n > 0 => {
                filled.push('…');
                filled.push_str(behind);
            }
            _ => filled.push_str(piece),
        }
    }
    filled.replace('\u{1}', "{").replace('\u{2}', "}")
}

//! The arrows of ARCHITECTURE.md, held by looking at what each folder imports.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder and what its sources must not say.
struct Rule {
    folder: &'static str,
    forbidden: &'static [&'static str],
}

const RULES: [Rule; 5] = [
    Rule {
        folder: "devices/src",
        forbidden: &[
            "kvm_ioctls",
            "kvm_bindings",
            "vfio_ioctls",
            "std::fs",
            "std::thread",
            "std::net",
            "libc::",
        ],
    },
    Rule {
        folder: "devices/src/pci",
        forbidden: &["crate::iommu"],
    },
    Rule {
        folder: "vfio/src",
        forbidden: &["kvm_ioctls", "kvm_bindings", "use strait::"],
    },
    Rule {
        folder: "vmm/src/boot",
        forbidden: &["kvm_ioctls", "crate::kvm", "crate::machine"],
    },
    Rule {
        folder: "vmm/src/acpi",
        forbidden: &["kvm_ioctls", "kvm_bindings", "crate::kvm", "crate::machine"],
    },
];

/// Where unsafe code may stand.
const UNSAFE_ROOMS: [&str; 4] = [
    "vfio/src/sys",
    "vmm/src/kvm/",
    "vmm/src/memory/block.rs",
    "bench/floor/src/sys.rs",
];

#[test]
fn folders_import_only_what_the_architecture_allows() {
    let offences: Vec<_> = RULES.iter().flat_map(offences_against).collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let all = [
        "devices/src",
        "devices/paths",
        "vfio/src",
        "vmm/src",
        "bench/src",
        "bench/floor/src",
        "tests/src",
    ]
    .map(sources)
    .concat();
    assert!(all.len() > 50, "the sources were found");
    let strays: Vec<_> = all
        .iter()
        .filter(|(path, text)| !UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) && has_unsafe(text))
        .map(|(path, _)| path)
        .collect();
    assert!(strays.is_empty(), "unsafe code in {strays:?}");
}

fn offences_against(rule: &Rule) -> Vec<String> {
    let found = sources(rule.folder);
    assert!(!found.is_empty(), "{} has sources", rule.folder);
    let says = |(path, text): &(String, String)| {
        let words = rule
            .forbidden
            .iter()
            .filter(|word| code(text).any(|line| line.contains(**word)));
        words
            .map(|word| format!("{path} says {word}"))
            .collect::<Vec<_>>()
    };
    found.iter().flat_map(says).collect()
}

/// The words are put together here, for this file is looked at too.
fn has_unsafe(text: &str) -> bool {
    let openings = ["{", "fn", "impl"].map(|opening| ["unsafe", opening].join(" "));
    code(text).any(|line| openings.iter().any(|words| line.contains(words)))
}

/// The lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Path from the workspace's root, and text, of every source below a folder.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace")
        .to_owned();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .expect("below the root")
                    .display()
                    .to_string();
                found.push((name, fs::read_to_string(&path).expect("a source")));
            }
        }
    }
    found
}

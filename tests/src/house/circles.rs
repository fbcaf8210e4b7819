//! No circles: of two files that import from each other, even by way of others, neither can be read alone.
//!
//! An arrow leads from a file to the one where a name that it imports is defined. Names are followed through
//! re-exports, so that a `mod.rs` which only declares and re-exports takes part in no circle. Tests may import
//! what they like, and macros are not looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

const CRATES: [&str; 3] = ["devices/src/lib.rs", "vfio/src/lib.rs", "vmm/src/lib.rs"];

#[test]
fn a_circle_by_way_of_a_third_file_is_found() {
    let circles = found(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        (
            "b.rs",
            "use super::c; pub struct B; impl B { fn c(&self) -> c::C { c::C } }",
        ),
        ("c.rs", "pub struct C; fn a() -> crate::a::A { crate::a::A }"),
        ("d.rs", "use super::a::A;"),
    ]);
    assert_eq!(circles.len(), 1);
    assert!(circles[0].starts_with("3 files"), "{circles:?}");
}

#[test]
fn a_child_that_takes_what_its_parent_defines_is_a_circle_and_what_it_hands_on_is_none() {
    let child = ("room/child.rs", "use super::Thing; pub struct Child(Thing);");
    let defines = [
        ("lib.rs", "mod room;"),
        (
            "room/mod.rs",
            "mod child; use child::Child; pub struct Thing; struct Both(Child);",
        ),
        child,
    ];
    assert_eq!(found(&defines).len(), 1);
    let hands_on = [
        ("lib.rs", "mod room;"),
        (
            "room/mod.rs",
            "mod child; mod thing; pub use child::Child; pub use thing::Thing;",
        ),
        ("room/thing.rs", "pub struct Thing;"),
        child,
    ];
    assert_eq!(found(&hands_on), [""; 0]);
}

#[test]
fn tests_may_import_what_they_like() {
    let circles = found(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "use crate::b::B; pub struct A; #[cfg(test)] mod tests { use super::A; }",
        ),
        (
            "b.rs",
            "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
        ),
    ]);
    assert_eq!(circles, [""; 0]);
}

/// What is found in a crate of these files, `lib.rs` first.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a source");
    }
    Crate::read(folder.path(), "lib.rs").circles()
}

/// A module by its path in the crate, `["pci", "bar"]`; the crate itself has none.
type ModulePath = Vec<String>;

#[test]
fn no_two_files_import_from_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace");
    let crates = CRATES.map(|start| Crate::read(root, start));
    assert!(
        crates.iter().all(|found| found.modules.len() > 20),
        "the modules were found"
    );
    let circles: Vec<_> = crates.iter().flat_map(Crate::circles).collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// The modules of a crate that are in files of their own or within another's.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// What it hands on: the name, and the path it takes it from.
    reexports: BTreeMap<String, Vec<String>>,
    /// Paths that its code takes names from.
    imports: BTreeSet<Vec<String>>,
}

impl Crate {
    fn read(root: &Path, start: &str) -> Self {
        let mut found = Self::default();
        let file = root.join(start);
        let items = parse(&file);
        found.add(Vec::new(), &file, &items);
        found
    }

    /// One module with all below it. `file` is where it stands.
    fn add(&mut self, path: ModulePath, file: &Path, items: &[Item]) {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        let mut reader = Reader {
            path: &path,
            module: &mut module,
            children: Vec::new(),
        };
        items.iter().for_each(|item| reader.visit_item(item));
        let children = reader.children;
        self.modules.insert(path.clone(), module);
        for child in children {
            let name = child.ident.to_string();
            let below = [path.clone(), vec![name.clone()]].concat();
            match &child.content {
                Some((_, items)) => self.add(below, file, items),
                None => {
                    let file = file_of(file, &name);
                    self.add(below, &file, &parse(&file));
                }
            }
        }
    }

    /// The file in which what `path` names is defined, if that is in this crate.
    fn defined_in(&self, path: &[String], steps: usize) -> Option<&Path> {
        let known = (0..=path.len())
            .rev()
            .find(|len| self.modules.contains_key(&path[..*len]))?;
        let module = &self.modules[&path[..known]];
        let Some(name) = path.get(known).filter(|_| steps > 0) else {
            return Some(&module.file);
        };
        if let Some(from) = module.reexports.get(name) {
            return self.defined_in(&[from, &path[known + 1..]].concat(), steps - 1);
        }
        Some(&module.file)
    }

    fn arrows(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut arrows: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for module in self.modules.values() {
            let targets = module.imports.iter().filter_map(|path| self.defined_in(path, 8));
            let others = targets.filter(|target| *target != module.file);
            arrows.entry(&module.file).or_default().extend(others);
        }
        arrows
    }

    /// Each set of files that reach each other, as a sentence.
    fn circles(&self) -> Vec<String> {
        let arrows = self.arrows();
        let reach: BTreeMap<_, _> = arrows
            .keys()
            .map(|file| (*file, reached(&arrows, file)))
            .collect();
        let mutual = |file: &Path| -> BTreeSet<&Path> {
            let back = |other: &&Path| reach.get(other).is_some_and(|reached| reached.contains(file));
            reach[file].iter().copied().filter(back).collect()
        };
        let circles: BTreeSet<_> = arrows
            .keys()
            .map(|file| mutual(file))
            .filter(|circle| circle.len() > 1)
            .collect();
        circles.iter().map(|circle| told(circle, &arrows)).collect()
    }
}

fn reached<'a>(arrows: &BTreeMap<&'a Path, BTreeSet<&'a Path>>, from: &Path) -> BTreeSet<&'a Path> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&Path> = arrows.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(arrows.get(file).into_iter().flatten());
        }
    }
    found
}

fn told(circle: &BTreeSet<&Path>, arrows: &BTreeMap<&Path, BTreeSet<&Path>>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"));
    let name = |file: &Path| file.strip_prefix(root).unwrap_or(file).display().to_string();
    let within = circle.iter().flat_map(|from| {
        let targets = arrows[from].iter().filter(|target| circle.contains(*target));
        targets.map(|to| format!("  {} imports from {}", name(from), name(to)))
    });
    let lines: Vec<_> = within.collect();
    format!(
        "{} files import from each other:\n{}",
        circle.len(),
        lines.join("\n")
    )
}

/// Where `mod name;` in `file` leads.
fn file_of(file: &Path, name: &str) -> PathBuf {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a source");
    let folder = match stem {
        "lib" | "main" | "mod" => file.parent().expect("a folder").to_owned(),
        _ => file.with_extension(""),
    };
    let [plain, nested] = [
        folder.join(format!("{name}.rs")),
        folder.join(name).join("mod.rs"),
    ];
    if plain.exists() { plain } else { nested }
}

fn parse(file: &Path) -> Vec<Item> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text);
    parsed
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .items
}

/// Collects what one module says.
struct Reader<'a> {
    path: &'a [String],
    module: &'a mut Module,
    children: Vec<ItemMod>,
}

impl Reader<'_> {
    /// The path from the crate's root of one written in this module; `None` for another crate's.
    fn absolute(&self, written: &[String]) -> Option<Vec<String>> {
        let mut at = self.path.to_vec();
        let mut rest = written;
        match rest.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            _ => return None,
        }
        Some([&at, rest].concat())
    }

    /// `use` may also begin with a child of this module.
    fn used(&self, written: &[String]) -> Vec<String> {
        let own = || [self.path, written].concat();
        self.absolute(written).unwrap_or_else(own)
    }

    fn take(&mut self, tree: &UseTree, before: &[String], is_reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                let before = [before, &[path.ident.to_string()]].concat();
                self.take(&path.tree, &before, is_reexport);
            }
            UseTree::Name(name) => self.named(before, &name.ident.to_string(), None, is_reexport),
            UseTree::Rename(rename) => {
                let new = rename.rename.to_string();
                self.named(before, &rename.ident.to_string(), Some(new), is_reexport);
            }
            UseTree::Glob(_) => {
                let path = self.used(before);
                self.module.imports.insert(path);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.take(tree, before, is_reexport);
                }
            }
        }
    }

    fn named(&mut self, before: &[String], name: &str, new: Option<String>, is_reexport: bool) {
        let written = match name {
            "self" => before.to_vec(),
            _ => [before, &[name.to_owned()]].concat(),
        };
        let path = self.used(&written);
        let new = new.or_else(|| written.last().cloned());
        match (is_reexport, new) {
            (true, Some(new)) => _ = self.module.reexports.insert(new, path),
            _ => _ = self.module.imports.insert(path),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.children.push(module.clone());
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        self.take(&item.tree, &[], is_reexport);
    }

    /// `pub(super)` names a module and takes nothing from it.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if let Some(path) = self.absolute(&written) {
            self.module.imports.insert(path);
        }
        visit::visit_path(self, path);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, or test support for other crates, which stands above what it supports.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

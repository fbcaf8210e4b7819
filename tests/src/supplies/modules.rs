//! Kernel modules of the tree: their order, and their plain form.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::supplies::command;
use crate::supplies::kernel::filter;
use crate::supplies::root::Root;

/// Writes `modules.dep` and its companions, by the rules that the tree has and not by the build machine's.
pub(crate) fn index(root: &Root, version: &str) -> Result<()> {
    let mut depmod = root.command_named("depmod", "usr/bin/kmod");
    depmod.arg("-b").arg(root.folder());
    depmod.arg("-C").arg(root.path("etc/depmod.d")).arg(version);
    command::run(&mut depmod).map(drop)
}

/// Keeps the named modules and what they need as plain `.ko` files.
pub(crate) fn decompress(root: &Root, version: &str, names: &[&str]) -> Result<()> {
    let folder = plain_folder(root, version);
    fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}", folder.display()))?;
    for module in Modules::read(root, version)?.order(names)? {
        let content = module.read_plain(root, version)?;
        let path = folder.join(format!("{}.ko", module.name));
        fs::write(&path, content).with_context(|| format!("Cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The files that [`decompress`] wrote, in the order they must be inserted.
pub(crate) fn plain(root: &Root, version: &str, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = plain_folder(root, version);
    let modules = Modules::read(root, version)?.order(names)?;
    let read = |module: Module| {
        let path = folder.join(format!("{}.ko", module.name));
        match fs::read(&path) {
            Ok(content) => Ok((module.name, content)),
            Err(_) => module
                .read_plain(root, version)
                .map(|content| (module.name, content)),
        }
    };
    modules.into_iter().map(read).collect()
}

fn plain_folder(root: &Root, version: &str) -> PathBuf {
    root.path("usr/share/strait-lab").join(version)
}

/// One loadable module.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    name: String,
    /// Relative to the version's folder.
    path: String,
}

impl Module {
    fn read_plain(&self, root: &Root, version: &str) -> Result<Vec<u8>> {
        let path = root.path("lib/modules").join(version).join(&self.path);
        let content = fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => Ok(content),
            Some("xz") => filter(root, "usr/bin/xz", &["-dc"], &content),
            Some("zst") => filter(root, "usr/bin/zstd", &["-dc"], &content),
            _ => bail!(
                "{} is compressed in a way that the lab does not know",
                path.display()
            ),
        }
    }
}

/// The dependency tables of one kernel.
struct Modules {
    /// Name to path and the paths it needs, nearest first: the format of `modules.dep`.
    needs: BTreeMap<String, (String, Vec<String>)>,
    built_in: BTreeSet<String>,
}

impl Modules {
    fn read(root: &Root, version: &str) -> Result<Self> {
        let folder = root.path("lib/modules").join(version);
        let read = |name: &str| {
            fs::read_to_string(folder.join(name)).with_context(|| format!("Cannot read {name} of {version}"))
        };
        Ok(Self::parse(&read("modules.dep")?, &read("modules.builtin")?))
    }

    fn parse(dep: &str, builtin: &str) -> Self {
        let entry = |line: &str| {
            let (path, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((name_of(path), (path.to_owned(), needs)))
        };
        Self {
            needs: dep.lines().filter_map(entry).collect(),
            built_in: builtin.lines().map(name_of).collect(),
        }
    }

    /// The modules to insert, dependencies first, each once.
    fn order(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut order: Vec<Module> = Vec::new();
        for name in names.iter().filter(|name| !self.built_in.contains(**name)) {
            let Some((path, needs)) = self.needs.get(*name) else {
                bail!("The kernel has no module {name}");
            };
            for path in needs.iter().rev().chain([path]) {
                let module = Module {
                    name: name_of(path),
                    path: path.clone(),
                };
                if !order.contains(&module) {
                    order.push(module);
                }
            }
        }
        Ok(order)
    }
}

/// `kernel/arch/x86/kvm/kvm-amd.ko.xz` is `kvm_amd`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "a/igb.ko.xz: b/dca.ko.xz c/i2c-algo-bit.ko.xz\nb/dca.ko.xz:\nc/i2c-algo-bit.ko.xz:\n";

    #[test]
    fn dependencies_come_first_and_built_in_ones_not_at_all() {
        let modules = Modules::parse(DEP, "kernel/ptp.ko\n");
        let order = modules.order(&["igb", "ptp", "dca"]).expect("an order");
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["i2c_algo_bit", "dca", "igb"]);
    }

    #[test]
    fn unknown_module_is_an_error() {
        assert!(Modules::parse(DEP, "").order(&["nope"]).is_err());
    }
}

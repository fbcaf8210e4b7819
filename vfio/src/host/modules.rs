//! Kernel modules: which drivers know a device, and which are loaded or built in.

use std::fs;

use super::HostBdf;
use super::sysfs::{PciDevice, Root, link_name};

/// Where the folders of kernels are; the last one is NixOS's.
pub(super) const FOLDERS: [&str; 3] = [
    "lib/modules",
    "usr/lib/modules",
    "run/booted-system/kernel-modules/lib/modules",
];

/// The modules of the running kernel, as depmod describes them.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Pattern of a device's modalias, and the module that wants it.
    aliases: Vec<(String, String)>,
}

/// How a module stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// Part of the kernel.
    BuiltIn,
    /// It is loaded now.
    Loaded,
    /// There is a file for it.
    Loadable,
    /// This kernel has none.
    Missing,
    /// It is not loaded, and the list of this kernel's modules cannot be seen, as in a container.
    Unknown,
}

impl Modules {
    /// Reads the aliases of PCI drivers.
    pub fn read(root: &Root) -> Self {
        let mut aliases = Vec::new();
        if let Some(folder) = folder(root) {
            let text = root.text(format!("{folder}/modules.alias")).unwrap_or_default();
            aliases.extend(text.lines().filter_map(alias));
            // NUL-terminated `module.alias=pci:...` of what is built in.
            let text = root
                .text(format!("{folder}/modules.builtin.modinfo"))
                .unwrap_or_default();
            aliases.extend(text.split('\0').filter_map(builtin_alias));
        }
        Self { aliases }
    }

    /// The modules that would drive `device` by themselves, and its driver now, in place of the module that has it.
    pub fn drivers_for(&self, root: &Root, device: &PciDevice) -> Vec<String> {
        let modalias = modalias(root, device.bdf).unwrap_or_default();
        let bound = link_name(&root.function(device.bdf).join("driver/module"))
            .ok()
            .flatten();
        let mut drivers = self.wanting(&modalias);
        // xhci_hcd is in xhci_pci; and modules are written with underscores where their drivers may have hyphens.
        let own = device.driver.as_ref().map(|driver| driver.replace('-', "_"));
        drivers.retain(|module| Some(module) != bound.as_ref() && Some(module) != own.as_ref());
        drivers.extend(device.driver.clone());
        drivers.sort();
        drivers.dedup();
        drivers
    }

    /// The modules that want a device with `modalias`.
    pub(super) fn wanting(&self, modalias: &str) -> Vec<String> {
        let fits = |pattern: &str| matches(pattern.as_bytes(), modalias.as_bytes());
        let wanting = self.aliases.iter().filter(|(pattern, _)| fits(pattern));
        wanting.map(|(_, module)| module.clone()).collect()
    }
}

/// How `module` stands in the running kernel.
pub fn module_state(root: &Root, module: &str) -> ModuleState {
    let name = module.replace('-', "_");
    let list = |list: &str| root.text(format!("{}/{list}", folder(root)?));
    // A built-in module has a folder in /sys/module too, if it has parameters; only a loaded one has a state.
    if root.path(format!("sys/module/{name}/initstate")).exists() {
        return ModuleState::Loaded;
    }
    if list("modules.builtin").is_some_and(|text| names(&text, &name)) {
        return ModuleState::BuiltIn;
    }
    if root.path(format!("sys/module/{name}")).exists() {
        return ModuleState::Loaded;
    }
    match list("modules.dep") {
        Some(text) if names(&text, &name) => ModuleState::Loadable,
        Some(_) => ModuleState::Missing,
        None => ModuleState::Unknown,
    }
}

/// Whether `driver` is there, or can come with a module: one of its name, or one that wants the function, as xhci_pci brings
/// xhci_hcd. True where that cannot be seen.
pub(super) fn may_have_driver(root: &Root, bdf: HostBdf, driver: &str) -> bool {
    let may_come = |module: &str| {
        matches!(
            module_state(root, module),
            ModuleState::Loadable | ModuleState::Unknown
        )
    };
    let wanting = || Modules::read(root).wanting(&modalias(root, bdf).unwrap_or_default());
    root.path("sys/bus/pci/drivers").join(driver).exists()
        || may_come(driver)
        || wanting().iter().any(|module| may_come(module))
}

/// Whether a list of depmod has a file of module `name`, as in `kernel/drivers/vfio/vfio.ko.xz: ...`.
fn names(list: &str, name: &str) -> bool {
    let module = |line: &str| {
        let path = line.split(':').next()?;
        let stem = path.rsplit('/').next()?.split(".ko").next()?;
        Some(stem.replace('-', "_"))
    };
    list.lines().any(|line| module(line).as_deref() == Some(name))
}

/// The folder of the running kernel's modules, relative to the root.
fn folder(root: &Root) -> Option<String> {
    let release = root.text("proc/sys/kernel/osrelease")?;
    let mut places = FOLDERS.iter().map(|place| format!("{place}/{release}"));
    places.find(|place| fs::exists(root.path(place)).unwrap_or(false))
}

/// What a module must want to be loaded for `bdf`, as `pci:v00008086d000010C9sv...`.
pub(super) fn modalias(root: &Root, bdf: HostBdf) -> Option<String> {
    root.text(root.function(bdf).join("modalias"))
}

/// `alias pci:v00008086d000010C9sv*sd*bc*sc*i* igb`.
fn alias(line: &str) -> Option<(String, String)> {
    let mut words = line.strip_prefix("alias ")?.split(' ');
    let pattern = words.next().filter(|pattern| pattern.starts_with("pci:"))?;
    Some((pattern.to_owned(), words.next()?.to_owned()))
}

fn builtin_alias(entry: &str) -> Option<(String, String)> {
    let (module, pattern) = entry.split_once(".alias=")?;
    pattern
        .starts_with("pci:")
        .then(|| (pattern.to_owned(), module.to_owned()))
}

/// Whether `text` has the form of `pattern`, in which `*` stands for anything. depmod's patterns have no
/// other wildcards for PCI.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last star must take one byte more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_anything() {
        let modalias = b"pci:v00008086d000010C9sv00008086sd0000A02Bbc02sc00i00";
        assert!(matches(b"pci:v00008086d000010C9sv*sd*bc*sc*i*", modalias));
        assert!(matches(b"pci:v*d*sv*sd*bc02sc00i*", modalias));
        assert!(!matches(b"pci:v00008086d000010CAsv*sd*bc*sc*i*", modalias));
        assert!(!matches(b"pci:v00008086", modalias));
        assert!(matches(b"**", b""));
        assert!(!matches(b"a", b""));
    }

    #[test]
    fn aliases_of_other_buses_are_no_pci_drivers() {
        assert!(alias("alias usb:v1d6b* usbcore").is_none());
        assert!(alias("alias pci:v1d*").is_none());
        assert_eq!(
            builtin_alias("nvme.alias=pci:v*"),
            Some(("pci:v*".to_owned(), "nvme".to_owned()))
        );
    }
}

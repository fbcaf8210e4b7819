//! The kernel's consoles, and the devices they are on.

use super::Use;
use crate::host::HostBdf;
use crate::host::sysfs::{Root, functions_on};

/// An active console, and the functions that show it. None for what is no PCI device.
#[derive(Clone, Debug)]
struct Console {
    name: String,
    functions: Vec<HostBdf>,
}

/// Every console that is active.
#[derive(Clone, Debug, Default)]
pub(super) struct Consoles(Vec<Console>);

impl Consoles {
    pub(super) fn read(root: &Root) -> Self {
        let active = root.text("sys/class/tty/console/active").unwrap_or_default();
        let consoles = active.split_whitespace().map(|name| Console {
            name: name.to_owned(),
            functions: functions(root, name),
        });
        Self(consoles.collect())
    }

    pub(super) fn uses(&self, bdf: HostBdf) -> Vec<Use> {
        let here = |console: &&Console| console.functions.contains(&bdf);
        let last = self.0.iter().all(|console| console.functions == [bdf]);
        let own = self.0.iter().filter(here);
        own.map(|console| Use::Console {
            console: console.name.clone(),
            last,
        })
        .collect()
    }
}

fn functions(root: &Root, console: &str) -> Vec<HostBdf> {
    let is_screen = console
        .strip_prefix("tty")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    if is_screen {
        return screens(root);
    }
    let path = root.path("sys/class/tty").join(console);
    functions_on(&path).last().copied().into_iter().collect()
}

/// What shows the virtual terminals: frame buffers; the firmware's own and plain VGA text are on the card
/// that the firmware started with.
fn screens(root: &Root) -> Vec<HostBdf> {
    let buffers = root.names("sys/class/graphics");
    let buffers = buffers.iter().filter(|name| {
        name.strip_prefix("fb")
            .is_some_and(|number| number.parse::<u32>().is_ok())
    });
    let mut screens: Vec<HostBdf> = buffers
        .filter_map(|name| {
            functions_on(&root.path("sys/class/graphics").join(name))
                .last()
                .copied()
        })
        .collect();
    if screens.is_empty() {
        screens.extend(boot_screen(root));
    }
    screens.sort();
    screens.dedup();
    screens
}

/// The graphics card that the firmware used.
pub(crate) fn boot_screen(root: &Root) -> Option<HostBdf> {
    let names = root.names("sys/bus/pci/devices");
    let mut functions = names.iter().filter_map(|name| name.parse::<HostBdf>().ok());
    functions.find(|bdf| root.text(root.function(*bdf).join("boot_vga")).as_deref() == Some("1"))
}

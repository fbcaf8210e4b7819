//! `strait host list`.

use clap::{Args, ValueEnum};
use strait_vfio::host::{CheckError, Function, Host, Inventory, PciIds, Use};

use super::find::find_all;
use super::listing::Listed;
use super::{groups, tree};
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Tone};

/// Show every PCI device with its driver, group, names and uses.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only these devices: an address, vendor:device, a network interface or a disk.
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// Draw buses and bridges.
    #[arg(long, conflicts_with = "groups")]
    tree: bool,
    /// Sort by IOMMU group.
    #[arg(long)]
    groups: bool,
    /// Only devices of this kind.
    #[arg(long, value_enum)]
    class: Option<Class>,
    /// For programs.
    #[arg(long, conflicts_with_all = ["tree", "groups"])]
    json: bool,
}

/// Kinds of devices that are passed often.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Class {
    Net,
    Display,
    Nvme,
    Usb,
    Audio,
}

impl Class {
    /// Whether `function` is of this kind, by its class code (PCI Code and ID Assignment §1).
    fn is(self, function: &Function) -> bool {
        let (class, subclass) = ((function.pci.class >> 16) as u8, (function.pci.class >> 8) as u8);
        match self {
            Self::Net => class == 0x02,
            Self::Display => class == 0x03,
            Self::Nvme => (class, subclass) == (0x01, 0x08),
            Self::Usb => (class, subclass) == (0x0c, 0x03),
            Self::Audio => class == 0x04 && matches!(subclass, 0x01 | 0x03),
        }
    }
}

impl ListArgs {
    pub(super) fn run(self, host: Host<'_>, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        let Inventory {
            functions,
            unreadable,
        } = Inventory::read(host)?;
        let ids = PciIds::read(host.root);
        let named = find_all(host.root, &self.devices)?;
        if let Some(absent) = named
            .iter()
            .find(|bdf| functions.iter().all(|one| one.pci.bdf != **bdf))
        {
            return Err(CheckError::NoSuchDevice(*absent).into());
        }
        let wanted = |function: &Function| {
            self.class.is_none_or(|class| class.is(function))
                && (named.is_empty() || named.contains(&function.pci.bdf))
        };
        if self.json {
            let listed = functions.iter().filter(|one| wanted(one));
            let listed: Vec<Listed> = listed.map(|one| Listed::new(one, &ids)).collect();
            screen.line(serde_json::to_string_pretty(&listed)?)?;
        } else if self.tree {
            tree::draw(screen, &functions, &ids, &wanted)?;
        } else if self.groups {
            groups::draw(screen, &functions, &ids, &wanted)?;
        } else {
            for function in functions.iter().filter(|one| wanted(one)) {
                describe(screen, function, &ids)?;
            }
        }
        for (name, error) in unreadable {
            log::warn!("{name} is left out: {error}");
        }
        Ok(0)
    }
}

/// A heading, what it is, and how it stands.
fn describe(screen: &mut Screen<'_>, function: &Function, ids: &PciIds) -> Result<(), Failure> {
    let pci = &function.pci;
    let bdf = screen.paint(Tone::Heading, &pci.bdf.to_string());
    let class = ids.class(pci);
    let used = pci.bdf.to_string().len() + class.len() + " :  [8086:10c9]".len();
    let name = Screen::fit(&ids.full_name(pci), used);
    screen.line(format!(
        "{bdf} {class}: {name} [{:04x}:{:04x}]",
        pci.vendor, pci.device
    ))?;
    screen.wrapped("    ", &standing(screen, function).join(", "))?;
    for one in &function.uses {
        screen.wrapped("    ", &painted(screen, one))?;
    }
    Ok(())
}

/// Driver, group, reset and the like, each in two or three words.
fn standing(screen: &Screen<'_>, function: &Function) -> Vec<String> {
    let mut parts = vec![driver(screen, function)];
    parts.push(match function.pci.group {
        Some(group) => format!("group {group}"),
        None => "no group".to_owned(),
    });
    if !function.reset_methods.is_empty() {
        parts.push(format!("reset {}", function.reset_methods.join("/")));
    }
    if let Some(node) = function.numa_node {
        parts.push(format!("node {node}"));
    }
    if let Some(sriov) = function.sriov {
        parts.push(format!("VFs {}/{}", sriov.active, sriov.max));
    }
    if let Some(physical) = function.physical_function {
        parts.push(format!("VF of {physical}"));
    }
    parts.extend(function.interfaces.iter().map(|name| format!("interface {name}")));
    parts.extend(function.disks.iter().map(|name| format!("disk {name}")));
    parts
}

/// The driver in use, and others there are.
fn driver(screen: &Screen<'_>, function: &Function) -> String {
    let bound = function.pci.driver.as_deref();
    let spelled = bound.unwrap_or_default().replace('-', "_");
    let others = function.drivers.iter();
    let others: Vec<&str> = others
        .map(String::as_str)
        .filter(|name| name.replace('-', "_") != spelled)
        .collect();
    let bound = match bound {
        Some(name) if function.pci.is_given && !name.contains("vfio") => {
            format!(
                "driver {}, which gives it to guests",
                screen.paint(Tone::Good, name)
            )
        }
        Some(name) => format!("driver {}", screen.paint(Tone::Good, name)),
        None => screen.paint(Tone::Quiet, "no driver"),
    };
    match others.is_empty() {
        true => bound,
        false => format!("{bound} (or {})", others.join(", ")),
    }
}

/// A use in its colour, marked when it keeps the device on the host.
pub(super) fn painted(screen: &Screen<'_>, one: &Use) -> String {
    match one.is_blocking() && !one.is_unknown() {
        true => screen.paint(Tone::Warning, &format!("in use: {one}")),
        false => one.to_string(),
    }
}

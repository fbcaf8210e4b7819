//! `strait host list --groups`: what can only be passed together.

use std::collections::BTreeMap;

use strait_vfio::host::{Function, PciIds};

use super::short::short;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Tone};

/// Prints each group that has a `wanted` function, with all its members.
pub(super) fn draw(
    screen: &mut Screen<'_>,
    functions: &[Function],
    ids: &PciIds,
    wanted: &dyn Fn(&Function) -> bool,
) -> Result<(), Failure> {
    let mut groups: BTreeMap<Option<u32>, Vec<&Function>> = BTreeMap::new();
    for function in functions {
        groups.entry(function.pci.group).or_default().push(function);
    }
    groups.retain(|_, members| members.iter().any(|member| wanted(member)));
    for (number, members) in groups {
        let heading = match number {
            Some(number) => format!("IOMMU group {number}"),
            None => "No IOMMU group".to_owned(),
        };
        screen.line(screen.paint(Tone::Heading, &heading))?;
        for member in members {
            let (class, name) = (ids.class(&member.pci), ids.full_name(&member.pci));
            let code = member.pci.class >> 8;
            let (vendor, device) = (member.pci.vendor, member.pci.device);
            screen.line(Screen::fit(
                &format!("  {} {class} [{code:04x}]: {name}", member.pci.bdf),
                0,
            ))?;
            screen.line(format!("      [{vendor:04x}:{device:04x}] {}", short(member)))?;
        }
    }
    Ok(())
}

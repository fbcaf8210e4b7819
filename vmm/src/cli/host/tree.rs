//! `strait host list --tree`: buses and bridges, drawn as `virsh nodedev-list --tree` draws them.

use strait_vfio::host::{Function, HostBdf, PciIds};

use super::short::short;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Tone};

/// Bridges below bridges: PCI has 256 buses in a domain.
const MAX_DEPTH: usize = 256;

/// Draws `functions`, leaving out what is not `wanted` unless something wanted is behind it.
pub(super) fn draw(
    screen: &mut Screen<'_>,
    functions: &[Function],
    ids: &PciIds,
    wanted: &dyn Fn(&Function) -> bool,
) -> Result<(), Failure> {
    let tree = Tree {
        functions,
        ids,
        wanted,
    };
    screen.line("computer")?;
    tree.draw_below(screen, None, "  ", 0)
}

struct Tree<'a> {
    functions: &'a [Function],
    ids: &'a PciIds,
    wanted: &'a dyn Fn(&Function) -> bool,
}

impl Tree<'_> {
    fn draw_below(
        &self,
        screen: &mut Screen<'_>,
        parent: Option<HostBdf>,
        indent: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        let children: Vec<&Function> = self
            .children(parent)
            .filter(|one| self.is_shown(one, depth))
            .collect();
        if children.is_empty() {
            return Ok(());
        }
        screen.line(format!("{indent}|"))?;
        for (number, child) in children.iter().enumerate() {
            self.draw_one(screen, child, indent)?;
            let rail = if number + 1 < children.len() { "|" } else { " " };
            self.draw_below(
                screen,
                Some(child.pci.bdf),
                &format!("{indent}{rail}   "),
                depth + 1,
            )?;
        }
        Ok(())
    }

    fn draw_one(&self, screen: &mut Screen<'_>, function: &Function, indent: &str) -> Result<(), Failure> {
        let bdf = function.pci.bdf.to_string();
        let group = function
            .pci
            .group
            .map(|group| format!("group {group}, "))
            .unwrap_or_default();
        let text = match &function.bus_behind {
            Some(bus) => format!("{}, {group}bus {bus}", self.ids.class(&function.pci)),
            None => format!("{}, {group}{}", self.ids.class(&function.pci), short(function)),
        };
        let text = Screen::fit(&text, indent.len() + "+- ".len() + bdf.len() + 1);
        let bdf = screen.paint(Tone::Heading, &bdf);
        Ok(screen.line(format!("{indent}+- {bdf} {text}"))?)
    }

    /// Those behind bridge `parent`, or on the root buses.
    fn children(&self, parent: Option<HostBdf>) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(move |one| one.parent == parent)
    }

    fn is_shown(&self, function: &Function, depth: usize) -> bool {
        let mut behind = self.children(Some(function.pci.bdf));
        depth < MAX_DEPTH && ((self.wanted)(function) || behind.any(|one| self.is_shown(one, depth + 1)))
    }
}

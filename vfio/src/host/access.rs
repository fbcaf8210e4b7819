//! A host as strait's commands have it.

use super::HostBdf;
use super::kernel::Kernel;
use super::sysfs::{PciDevice, Root};
use super::usage::{LateUsage, Use};

/// Where a host is read, who changes it, and who knows what helps there.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Below it are its sysfs, procfs and dev.
    pub root: &'a Root,
    /// Writes to files below it, and asks for modules.
    pub kernel: &'a dyn Kernel,
    pub(super) remedies: &'a dyn Remedies,
}

/// What to do about a device. Each remedy is tried by the rules of the command that it names before it is told, so
/// whoever refuses something asks through this seam for commands that stand above it, its own among them.
pub(super) trait Remedies {
    /// How `device` gets to vfio-pci.
    fn to_bind(&self, host: Host<'_>, usage: &LateUsage<'_>, device: &PciDevice) -> String;

    /// How all that shares the group of `bdf` gets to vfio-pci with it.
    fn to_bind_group(&self, host: Host<'_>, usage: &LateUsage<'_>, bdf: HostBdf) -> String;

    /// What helps where virtual function `vf` cannot be passed without its physical one.
    fn without_its_virtual_functions(
        &self,
        host: Host<'_>,
        usage: &LateUsage<'_>,
        vf: HostBdf,
        physical: HostBdf,
    ) -> String;

    /// What ends `uses` of `bdf` one after the other; where one has no end, the others need none.
    fn end_of_uses(&self, host: Host<'_>, usage: &LateUsage<'_>, uses: &[&Use], bdf: HostBdf) -> String;

    /// How `device` comes to the driver that makes its virtual functions.
    fn to_own_driver(&self, host: Host<'_>, usage: &LateUsage<'_>, device: &PciDevice) -> String;
}

//! A host as strait's commands have it.

use super::kernel::Kernel;
use super::sysfs::Root;

/// Where a host is read, and who changes it.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Below it are its sysfs, procfs and dev.
    pub root: &'a Root,
    /// Writes to them.
    pub kernel: &'a dyn Kernel,
}

impl<'a> Host<'a> {
    /// The host below `root`, changed through `kernel`.
    pub fn new(root: &'a Root, kernel: &'a dyn Kernel) -> Self {
        Self { root, kernel }
    }
}

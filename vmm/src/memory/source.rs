//! Which memory of the host RAM is made of.

use std::fs::File;

use crate::config::{Nodes, PageSize};

/// Where RAM comes from: this process's own memory, or a file that has its pages reserved.
#[derive(Debug, Default)]
pub struct RamSource {
    /// The file that has the pages; none for memory of this process.
    pub(super) file: Option<File>,
    /// The pages of the file; none for those that the kernel chooses.
    pub(super) page: Option<PageSize>,
    /// The nodes that they are of; none for all.
    pub(super) nodes: Option<Nodes>,
}

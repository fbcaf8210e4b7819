//! Which memory of the host RAM is made of.

use std::fs::File;

use serde_json::{Value, json};

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

impl RamSource {
    /// For programs: the size of its pages where they are the host's large ones, whether it is a file that others can share,
    /// and the nodes that it is of where they were chosen.
    pub fn tell(&self) -> Value {
        json!({
            "pages": self.page.map(|page| page.to_string()),
            "shared": self.file.is_some(),
            "nodes": self.nodes.map(|nodes| nodes.to_string()),
        })
    }
}

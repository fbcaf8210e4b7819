//! What a host measures its drives with, for the scenario that measures one. It joins the tree in a folder of its own, with
//! all that it depends on: three times as many libraries as anything else there.

use std::fs;

use anyhow::{Context, Result};

use super::apt::{Apt, Release};
use super::cache::Cache;
use super::root::Root;
use super::{remove, replace};

const PACKAGE: &str = "fio";

/// In the tree, and so in the lab host.
pub(crate) const FOLDER: &str = "opt/fio";

/// What the stamp says of it.
pub(super) fn recipe(release: &Release) -> String {
    format!("{} {PACKAGE}\n", release.codename)
}

/// Downloads, verifies and unpacks it.
pub(super) fn build(cache: &Cache, release: &Release, root: &Root) -> Result<()> {
    let apt = Apt::new(cache, release)?;
    let files = apt.fetch(|apt| apt.with_dependencies(&[PACKAGE]))?;
    let fresh = cache.path("fio.new");
    remove(&fresh)?;
    Apt::unpack(&files, &fresh)?;
    let folder = root.path("opt");
    fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}", folder.display()))?;
    replace(&fresh, &root.path(FOLDER))
}

//! The devices that a command's words name.

use strait_vfio::host::{HostBdf, LookupError, Root, find};

use crate::cli::failure::Failure;

/// The functions that `names` stand for, each once.
pub(super) fn find_all(root: &Root, names: &[String]) -> Result<Vec<HostBdf>, Failure> {
    let mut found: Vec<HostBdf> = Vec::new();
    for name in names {
        let bdf = find(root, name).map_err(|error| match error {
            LookupError::Unknown(_) => Failure::usage(error.to_string()),
            error => error.into(),
        })?;
        if found.contains(&bdf) {
            return Err(Failure::usage(format!("{bdf} is given twice; leave one out")));
        }
        found.push(bdf);
    }
    Ok(found)
}

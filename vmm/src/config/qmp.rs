//! Who may control the guest: `--qmp`.

use std::io;

use crate::control::{Control, QmpAddress};

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--qmp {0}: cannot listen there")]
pub struct QmpError(QmpAddress, #[source] io::Error);

/// Listens where the user wants it.
///
/// # Errors
/// When the socket cannot be had.
pub fn listen(address: &QmpAddress) -> Result<Control, QmpError> {
    Control::listen(address).map_err(|source| QmpError(address.clone(), source))
}

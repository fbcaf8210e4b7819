//! What an errno of the host's files means for who types a command: the end of a message, or nothing.

use std::io;

/// Rights alone.
pub(super) fn rights(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    }
}

/// Of a write to /sys.
pub(super) fn sysfs(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EROFS) => "; /sys is read-only here, run on the host itself or in a privileged container",
        _ => rights(error),
    }
}

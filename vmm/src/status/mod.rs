//! Where a run stands, for programs that started it: `--status`, and a service manager's NOTIFY_SOCKET.
//!
//! [`Status`] is told where the run stands and passes on what is new: as a line of JSON to the file that the user
//! named, and in systemd's words to the service manager. Neither can make the guest wait.

mod lines;
mod notify;
mod report;
mod target;

pub use report::{Status, StatusError};
pub use target::StatusTarget;

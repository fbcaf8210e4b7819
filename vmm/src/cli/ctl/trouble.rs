//! Why a guest did not do what it was asked for, with the exit code by which a script tells.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use strait_devices::Chain;

use crate::cli::failure::{Failure, USAGE};
use crate::config::DeviceConfigError;

/// Something else went wrong, or the guest refuses it.
const FAILED: u8 = 1;
/// There is no such guest, or it ended meanwhile.
const NO_GUEST: u8 = 3;
/// The guest is another user's.
const NOT_ALLOWED: u8 = 4;
/// It does not answer.
const SILENT: u8 = 5;
/// The guest itself did not do what it was asked for.
const UNHEARD: u8 = 6;

/// The end of a command that was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(
        "no guest is named, and none that has a name is running; start one with `strait run --name NAME`"
    )]
    NobodyRuns,
    #[error("no guest is named, and several are running: {}; name one, as in `strait ctl {} info`", .0.join(", "), .0[0])]
    Several(Vec<String>),
    #[error("ctl {word}: no command follows, and {word:?} is none; the commands are {commands}")]
    NoCommand { word: String, commands: String },
    #[error("{0}")]
    BadName(String),
    #[error(
        "{0}: no guest of this name is running; `strait ctl list` shows those of yours that are, `sudo strait ctl list` \
         root's"
    )]
    Unknown(String),
    #[error("{}: no guest listens there", .0.display())]
    NoSocket(PathBuf, #[source] io::Error),
    #[error("{0}: only the user who started this guest, and root, may control it")]
    NotAllowed(String),
    #[error("{0}: cannot be reached")]
    Connect(String, #[source] io::Error),
    #[error("{0}: it gave no answer in {1:?}; it is being started yet, or its process stands still")]
    Silent(String, Duration),
    #[error("{0}: what answers there is not a guest of Strait or QEMU")]
    Foreign(String),
    #[error("{0}: the guest ended before it answered")]
    Gone(String),
    #[error("{guest}: {why}")]
    Refused { guest: String, why: String },
    #[error("{device}")]
    Device {
        device: String,
        source: DeviceConfigError,
    },
    #[error("{guest}: it has no device {device:?}; it has {has}")]
    NoDevice {
        guest: String,
        device: String,
        has: String,
    },
    #[error("{guest}: it keeps {device}; `--force` takes it without asking")]
    Kept { guest: String, device: String },
    #[error(
        "{guest}: it did not let go of {device} in {waited:?}, and may do so later; `--force` takes it without asking"
    )]
    NotYet {
        guest: String,
        device: String,
        waited: Duration,
    },
    #[error(
        "{guest}: it did not power off in {waited:?}, and may do so later; `strait ctl {guest} quit` ends it"
    )]
    StillOn { guest: String, waited: Duration },
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl Trouble {
    fn code(&self) -> u8 {
        match self {
            Self::Several(_) | Self::NoCommand { .. } | Self::BadName(_) | Self::Device { .. } => USAGE,
            Self::NobodyRuns | Self::Unknown(_) | Self::NoSocket(..) | Self::Gone(_) => NO_GUEST,
            Self::NotAllowed(_) => NOT_ALLOWED,
            Self::Silent(..) => SILENT,
            Self::Kept { .. } | Self::NotYet { .. } | Self::StillOn { .. } => UNHEARD,
            Self::Connect(..) | Self::Foreign(_) | Self::Refused { .. } => FAILED,
            Self::NoDevice { .. } | Self::Output(_) => FAILED,
        }
    }

    /// What the command ends with.
    pub(super) fn failure(&self) -> Failure {
        Failure {
            code: self.code(),
            message: Chain(self).to_string(),
        }
    }
}

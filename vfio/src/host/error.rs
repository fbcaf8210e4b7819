//! Why devices are not given away.

use std::io;

use super::HostBdf;
use super::binding::BindingError;
use super::entry_limit::EntryLimitError;
use super::journal::JournalError;
use super::refusal::CheckError;

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The device cannot be passed at all.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The undo journal does not work.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step of giving the device away, or back, failed.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// The limit of DMA mappings stays as it is.
    #[error(transparent)]
    EntryLimit(#[from] EntryLimitError),
    /// The host needs it.
    #[error(
        "{bdf} {state}; {remedy}, or take it all the same with \
             strait host bind --force {bdf}"
    )]
    InUse {
        /// The function's address on the host.
        bdf: HostBdf,
        /// In what way, as the end of a sentence.
        state: String,
        /// What ends the use.
        remedy: String,
    },
    /// A virtual function ends when its physical one loses its driver.
    #[error("{vf} cannot be taken together with {physical}: {remedy}")]
    WithPhysical {
        /// Address of the virtual function.
        vf: HostBdf,
        /// Address of its physical function.
        physical: HostBdf,
        /// What else can be done.
        remedy: String,
    },
    /// The host needs it, and it cannot be taken even by force.
    #[error("{bdf} {state}; {remedy} (--force would not help)")]
    Needed {
        /// The function's address on the host.
        bdf: HostBdf,
        /// In what way, as the end of a sentence.
        state: String,
        /// What to do about it, if something is known.
        remedy: String,
    },
    /// Somebody else has plans with it.
    #[error(
        "driver_override of {bdf} is {driver} already, set by another tool; undo it there (driverctl \
         unset-override {bdf}), or overrule it with strait host bind --force {bdf}"
    )]
    Overridden {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of the driver that is wanted there.
        driver: String,
    },
    /// Another command was faster.
    #[error("another command took or gave back {0} meanwhile; try again")]
    Changed(HostBdf),
    /// A kernel before 3.16, or no PCI device.
    #[error("{0} has no driver_override in /sys; strait needs Linux 5.10 or later")]
    NoOverride(HostBdf),
    /// No driver has such a name.
    #[error("{0:?} is no name of a driver; usual ones are vfio-pci and pci-stub")]
    DriverName(String),
    /// It cannot be repeated at boot.
    #[error("cannot save the binding of {bdf} in {path}")]
    Save {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Path of the file.
        path: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// Something failed, and so did the way back.
    #[error("{failure}; and {bdf} could not be given back: {undo}; try strait host restore {bdf}")]
    NotUndone {
        /// The failure after which all was to go back.
        failure: Box<BindError>,
        /// The device that is left.
        bdf: HostBdf,
        /// Why it could not go back.
        undo: Box<BindError>,
    },
}

//! Giving back what was taken: by the journal, or without it by what the device looks like.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use super::HostBdf;
use super::access::Host;
use super::binding::{Binding, BindingError};
use super::check;
use super::drivers::is_vfio_driver;
use super::entry_limit::{self, EntryLimitError};
use super::inventory::override_drivers;
use super::journal::{self, JournalError, Owner, UndoEntry};
use super::process::{OpenFiles, Process};
use super::refusal::CheckError;
use super::saved;
use super::sysfs::{PciDevice, Root};
use super::usage::{self, Held, LateUsage};

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It went back to this driver, or to none.
    To(Option<String>),
    /// It was not taken.
    Untouched(Option<String>),
    /// It was taken and is gone since.
    Gone,
}

/// Why a device was not given back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no such device.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The journal does not work.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step of giving the device away, or back, failed.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// It is back, but the limit of DMA mappings is not.
    #[error(transparent)]
    EntryLimit(#[from] EntryLimitError),
    /// A guest has it.
    #[error("{bdf} is in use by process {pid} ({name}); end it first, or give the device back with --force")]
    InUse {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Number of the process.
        pid: u32,
        /// Name of the process, as in comm.
        name: String,
    },
    /// A guest may have it.
    #[error(
        "{0} may be in use by a process that cannot be seen from here; give it back as root on the host itself, or \
         all the same with --force"
    )]
    MayBeInUse(HostBdf),
    /// Somebody moved it on.
    #[error(
        "{bdf} is bound to {driver} now, not to {bound} as strait left it; give it back all the same with \
         --force"
    )]
    Moved {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of the driver that has it.
        driver: String,
        /// Name of the driver that had it.
        bound: String,
    },
    /// It would be bound again at the next boot.
    #[error("cannot take away the files that bind {bdf} at boot")]
    Saved {
        /// The function's address on the host.
        bdf: HostBdf,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
}

/// Gives `bdf` back, and forgets a saved binding.
///
/// # Errors
/// When it is in use or does not go: a later call goes on from there.
pub fn restore(host: Host<'_>, bdf: HostBdf, force: bool) -> Result<Restored, RestoreError> {
    let _lock = journal::lock(host.root)?;
    restore_locked(host, bdf, force)
}

fn restore_locked(host: Host<'_>, bdf: HostBdf, force: bool) -> Result<Restored, RestoreError> {
    let entry = match journal::read(host.root, bdf) {
        // It says nothing that can be used; the device itself says enough.
        Err(JournalError::Damaged { .. }) => None,
        entry => entry?,
    };
    let device = match check::device(host.root, bdf) {
        Err(CheckError::NoSuchDevice(_)) if remembered(host.root).contains(&bdf) => None,
        device => Some(device?),
    };
    let restored = match &device {
        None => Restored::Gone,
        Some(device) => {
            if !force {
                // Anew for each, since the one before may have taken its time.
                let files = || Cow::Owned(OpenFiles::read(host.root));
                check_free(host, files, device, entry.as_ref())?;
            }
            let binding = Binding { host, bdf };
            match entry {
                Some(entry) => by_journal(&binding, &entry)?,
                None => by_looks(&binding, device)?,
            }
        }
    };
    journal::remove(host.root, bdf)?;
    entry_limit::let_go(host, bdf)?;
    saved::forget(host.root, bdf).map_err(|source| RestoreError::Saved { bdf, source })?;
    Ok(restored)
}

/// Gives back what was taken for processes that have ended, as after a crash. Says what became of each.
pub fn restore_orphans(host: Host<'_>) -> Vec<(HostBdf, Result<Restored, RestoreError>)> {
    // A first look, for without orphans nobody needs the lock, which is root's.
    let seem_orphans = journal::taken(host.root)
        .into_iter()
        .filter(|bdf| is_orphan(host.root, *bdf));
    let restore_one = |bdf| Some((bdf, restore_orphan(host, bdf).transpose()?));
    seem_orphans.filter_map(restore_one).collect()
}

/// Under the lock, since another command may have given `bdf` back and taken it anew meanwhile.
fn restore_orphan(host: Host<'_>, bdf: HostBdf) -> Result<Option<Restored>, RestoreError> {
    let _lock = journal::lock(host.root)?;
    match is_orphan(host.root, bdf) {
        true => restore_locked(host, bdf, false).map(Some),
        false => Ok(None),
    }
}

/// Whether the process that `bdf` was taken for has ended.
fn is_orphan(root: &Root, bdf: HostBdf) -> bool {
    let owner = journal::read(root, bdf)
        .ok()
        .flatten()
        .and_then(|entry| entry.owner);
    owner.is_some_and(|owner| !owner.is_alive(root))
}

/// What `restore --all` is about: all that is in the journal or bound at boot, and, for after a loss of the journal,
/// all that an override keeps on a driver of VFIO.
pub fn restorable(host: Host<'_>) -> Vec<HostBdf> {
    let mut devices = remembered(host.root);
    let all = host.root.names("sys/bus/pci/devices");
    let all: Vec<HostBdf> = all.iter().filter_map(|name| name.parse().ok()).collect();
    let folders: Vec<PathBuf> = all.iter().map(|bdf| host.root.function(*bdf)).collect();
    let overrides = override_drivers(host.kernel, &folders);
    // What the kernel does not tell now was no loss of the journal.
    let is_ours =
        |found: &io::Result<Option<String>>| matches!(found, Ok(Some(driver)) if is_vfio_driver(driver));
    let overridden = all.into_iter().zip(overrides).filter(|(_, found)| is_ours(found));
    devices.extend(overridden.map(|(bdf, _)| bdf));
    devices.sort();
    devices.dedup();
    devices
}

/// Devices that were taken, those that only raised the limit of DMA mappings, and those that are bound at boot.
fn remembered(root: &Root) -> Vec<HostBdf> {
    let mut devices = journal::taken(root);
    devices.extend(entry_limit::askers(root));
    devices.extend(saved::devices(root));
    devices
}

fn is_overridden(binding: &Binding<'_>) -> Result<bool, BindingError> {
    let driver = binding.override_driver()?;
    Ok(driver.is_some_and(|driver| is_vfio_driver(&driver)))
}

/// Whether giving `device` back would move it to another driver. Changes nothing.
pub(super) fn would_move(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    device: &PciDevice,
) -> Result<bool, RestoreError> {
    let bdf = device.bdf;
    let entry = journal::read(host.root, bdf).unwrap_or_default();
    check_free(host, || Cow::Borrowed(usage.files()), device, entry.as_ref())?;
    let binding = Binding { host, bdf };
    let taken = device.driver.as_deref().is_some_and(is_vfio_driver) || is_overridden(&binding)?;
    Ok(taken || entry.is_some())
}

/// No process has it, and nobody else took it on.
fn check_free<'a>(
    host: Host<'_>,
    files: impl FnOnce() -> Cow<'a, OpenFiles>,
    device: &PciDevice,
    entry: Option<&UndoEntry>,
) -> Result<(), RestoreError> {
    let bdf = device.bdf;
    let is_ours = |driver: &String| entry.is_some_and(|entry| entry.bound == *driver);
    if device.is_given || device.driver.as_ref().is_some_and(is_ours) {
        check_let_go(host, &files(), bdf, entry)?;
    }
    match (entry, &device.driver) {
        (Some(entry), Some(driver)) if *driver != entry.bound && Some(driver) != entry.driver.as_ref() => {
            Err(RestoreError::Moved {
                bdf,
                driver: driver.clone(),
                bound: entry.bound.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// No process has it open. Whoever took it for itself alone need not see all others.
fn check_let_go(
    host: Host<'_>,
    files: &OpenFiles,
    bdf: HostBdf,
    entry: Option<&UndoEntry>,
) -> Result<(), RestoreError> {
    let owner = entry.and_then(|entry| entry.owner);
    match usage::held(host.root, host.kernel, files, bdf) {
        Held::By(Process { pid, name, .. }) => Err(RestoreError::InUse { bdf, pid, name }),
        Held::Unseen if owner.is_none() || owner != Owner::this(host.root) => {
            Err(RestoreError::MayBeInUse(bdf))
        }
        Held::Unseen | Held::Free => Ok(()),
    }
}

fn by_journal(binding: &Binding<'_>, entry: &UndoEntry) -> Result<Restored, RestoreError> {
    let now = binding.driver()?;
    if let Some(driver) = entry
        .driver
        .as_ref()
        .filter(|driver| now.as_ref() != Some(driver))
    {
        // Before the device loses the driver that it has.
        binding.load(driver)?;
    }
    let override_now = binding.override_driver()?;
    let moved = binding.put_back(entry.driver.as_deref(), entry.override_driver.as_deref());
    let waits = matches!(moved, Err(BindingError::Pending { .. }));
    if moved.is_err() && !waits {
        // As it was found, as far as that goes; the first failure is the one to tell.
        let _ = binding.set_override(override_now.as_deref());
        if let (Ok(None), Some(driver)) = (binding.driver(), &now) {
            let _ = binding.give_to(driver);
        }
    }
    moved?;
    Ok(Restored::To(entry.driver.clone()))
}

/// An override or a driver of VFIO is taken for ours; the kernel chooses the driver then.
fn by_looks(binding: &Binding<'_>, device: &PciDevice) -> Result<Restored, RestoreError> {
    let bound = device.driver.as_deref().is_some_and(is_vfio_driver);
    if !bound && !is_overridden(binding)? {
        return Ok(Restored::Untouched(device.driver.clone()));
    }
    binding.set_override(None)?;
    if bound || device.driver.is_none() {
        binding.unbind()?;
        if binding.probe_any()?.is_none() {
            binding.load_natural();
            binding.probe_any()?;
        }
    }
    Ok(Restored::To(binding.driver()?))
}

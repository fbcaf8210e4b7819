//! Virtual functions: how many a physical function has, and what they are called on the wire.

use std::io;
use std::time::Duration;

use super::HostBdf;
use super::access::Host;
use super::check;
use super::drivers::is_vfio_driver;
use super::entry_limit::{self, EntryLimitError};
use super::hint;
use super::inventory::physical_function;
use super::journal::{self, JournalError};
use super::kernel::is_pending;
use super::process::Process;
use super::refusal::CheckError;
use super::sysfs::{PciDevice, Root, read_text};
use super::usage::{self, LateUsage, Names, Usage, Use};
use super::vf_link::VfLink;
use super::virtual_links::{count_virtual_functions, virtual_links};

/// A driver makes or removes virtual functions one by one; mlx5 was seen to need 22 s for 64 and 65 s for 125.
/// Four times that, and what any write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
const WRITE_LIMIT_EACH: Duration = Duration::from_secs(2);
/// udev runs through its queue within this time and a try more for each function, unless one of its rules hangs.
const SETTLE_TRIES: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// A virtual function as it is after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualFunction {
    /// Its address on the host.
    pub bdf: HostBdf,
    /// Number of its IOMMU group.
    pub group: Option<u32>,
    /// Name of its driver, as in sysfs.
    pub driver: Option<String>,
    /// Name of its network interface.
    pub interface: Option<String>,
    /// Its address, where its interface shows one.
    pub mac: Option<String>,
}

/// Why there are not as many virtual functions as wanted.
#[derive(Debug, thiserror::Error)]
pub enum SriovError {
    /// There is no such device.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The journal does not work.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The limit of DMA mappings cannot be put back.
    #[error(transparent)]
    EntryLimit(#[from] EntryLimitError),
    /// It can have none.
    #[error(
        "{0} has no SR-IOV, or the firmware keeps it off; strait host list shows VFs n/max where there is"
    )]
    None(HostBdf),
    /// It is a virtual function itself.
    #[error("{bdf} is a virtual function itself; name its physical function {physical}")]
    IsVirtual {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Address of its physical function.
        physical: HostBdf,
    },
    /// It can have less.
    #[error("{bdf} can have at most {max} virtual functions, not {wanted}")]
    TooMany {
        /// The function's address on the host.
        bdf: HostBdf,
        /// What it can have.
        max: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// Its driver makes them, and it has none or one for passing.
    #[error("{bdf} has {driver}, and only the device's own driver makes virtual functions; {remedy}")]
    Driver {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of its driver, as in sysfs.
        driver: String,
        /// How it comes to its own.
        remedy: String,
    },
    /// A guest has one.
    #[error(
        "the virtual function {vf} of {bdf} is in use by process {pid} ({name}); end it first, all virtual \
         functions vanish when their number changes"
    )]
    Guest {
        /// Address of the physical function.
        bdf: HostBdf,
        /// Address of the virtual function.
        vf: HostBdf,
        /// Number of the process.
        pid: u32,
        /// Name of the process, as in comm.
        name: String,
    },
    /// The host uses one.
    #[error(
        "the virtual function {vf} of {bdf} {state}; all virtual functions vanish when their number \
         changes, do it all the same with --force"
    )]
    InUse {
        /// Address of the physical function.
        bdf: HostBdf,
        /// Address of the virtual function.
        vf: HostBdf,
        /// In what way, as the end of a sentence.
        state: String,
    },
    /// Its driver refuses the number.
    #[error("cannot set the number of virtual functions of {bdf} to {wanted}{}", hint(.source))]
    Write {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Virtual functions that were asked for.
        wanted: u32,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The driver is still at it.
    #[error(
        "{bdf} has {made} virtual functions instead of {wanted} so far; its driver still works on it, so nothing \
         was undone, see how far it is with: strait host list {bdf}"
    )]
    Pending {
        /// The function's address on the host.
        bdf: HostBdf,
        /// How many are there.
        made: u32,
        /// Virtual functions that were asked for.
        wanted: u32,
        /// How long it was waited for.
        #[source]
        source: io::Error,
    },
    /// They did not come.
    #[error("{bdf} made {made} of {wanted} virtual functions; see the kernel's log")]
    Missing {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Virtual functions that are there.
        made: u32,
        /// Virtual functions that were asked for.
        wanted: u32,
    },
    /// Who has no interface can set no address.
    #[error("{0} has no network interface, through which an address or VLAN is set")]
    NoInterface(HostBdf),
    /// The driver does not take address or VLAN.
    #[error("cannot set address or VLAN of virtual function {index} of {interface}{}", hint(.source))]
    Link {
        /// The physical function's interface.
        interface: String,
        /// Number of the virtual function, from 0 on.
        index: usize,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; the firmware left no room for them, turn on SR-IOV there or boot with pci=realloc"
        }
        Some(libc::EBUSY) => "; another program changes it",
        _ => hint::sysfs(error),
    }
}

/// Gives physical function `bdf` `wanted` virtual ones and returns them. With another number all that there
/// were vanish first. When the new ones do not come the old number is set again. `progress` hears each second
/// how many there are, and how long that took.
///
/// # Errors
/// When it cannot have so many, or those there are still used.
pub fn set_virtual_functions(
    host: Host<'_>,
    bdf: HostBdf,
    wanted: u32,
    force: bool,
    progress: &mut dyn FnMut(u32, Duration),
) -> Result<Vec<VirtualFunction>, SriovError> {
    let active = check_physical(
        host,
        &Usage::late(host.root),
        &check::device(host.root, bdf)?,
        wanted,
    )?;
    if active != wanted {
        let mut change = Change { host, bdf, progress };
        change.run(wanted, force)?;
    }
    Ok(virtual_functions(host.root, bdf))
}

/// Sets addresses and VLANs of the virtual functions of `bdf`, in their order.
///
/// # Errors
/// When the driver of the physical function does not take one.
pub fn set_links(host: Host<'_>, bdf: HostBdf, links: &[VfLink]) -> Result<(), SriovError> {
    if links.is_empty() {
        return Ok(());
    }
    let interfaces = Names::read(host.root).interfaces(bdf);
    let interface = interfaces.first().ok_or(SriovError::NoInterface(bdf))?;
    for (index, link) in links.iter().enumerate() {
        let set = host.kernel.set_vf_link(interface, index as u32, link);
        set.map_err(|source| SriovError::Link {
            interface: interface.clone(),
            index,
            source,
        })?;
    }
    Ok(())
}

/// Whether a change to `wanted` would be refused. Changes nothing.
pub(super) fn check_change(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    bdf: HostBdf,
    wanted: u32,
) -> Result<(), SriovError> {
    check_physical(host, usage, &check::device(host.root, bdf)?, wanted)?;
    check_unused(host, usage, bdf, &virtual_functions(host.root, bdf), false)
}

/// The number there are, if there may be `wanted`.
fn check_physical(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    device: &PciDevice,
    wanted: u32,
) -> Result<u32, SriovError> {
    let bdf = device.bdf;
    let folder = host.root.function(bdf);
    if let Some(physical) = physical_function(&folder) {
        return Err(SriovError::IsVirtual { bdf, physical });
    }
    let number = |file: &str| read_text(&folder.join(file)).ok()?.parse::<u32>().ok();
    let max = number("sriov_totalvfs")
        .filter(|max| *max > 0)
        .ok_or(SriovError::None(bdf))?;
    if wanted > max {
        return Err(SriovError::TooMany { bdf, max, wanted });
    }
    let active = match active(host, bdf) {
        Err(source) if is_pending(&source) => {
            let made = count_virtual_functions(host.root, bdf);
            return Err(SriovError::Pending {
                bdf,
                made,
                wanted,
                source,
            });
        }
        found => found.unwrap_or(0),
    };
    match makes_virtual_functions(host.root, device) || active == wanted {
        true => Ok(active),
        false => Err(SriovError::Driver {
            bdf,
            driver: device.driver_name().to_owned(),
            remedy: host.remedies.to_own_driver(host, usage, device),
        }),
    }
}

/// The number that the physical function is set to.
fn active(host: Host<'_>, bdf: HostBdf) -> io::Result<u32> {
    let text = host.kernel.read(&host.root.function(bdf).join("sriov_numvfs"))?;
    text.parse().map_err(io::Error::other)
}

/// A driver of VFIO makes none, but vfio-pci does when it is told to (`vfio_pci_sriov_configure`).
fn makes_virtual_functions(root: &Root, device: &PciDevice) -> bool {
    match device.driver.as_deref() {
        None => false,
        Some(driver) if is_vfio_driver(driver) => {
            let told = root.text("sys/module/vfio_pci/parameters/enable_sriov");
            driver == "vfio-pci" && matches!(told.as_deref(), Some("Y" | "1"))
        }
        Some(_) => true,
    }
}

/// No guest and, without force, nothing of the host uses `vfs`.
fn check_unused(
    host: Host<'_>,
    usage: &Usage,
    bdf: HostBdf,
    vfs: &[VirtualFunction],
    force: bool,
) -> Result<(), SriovError> {
    for vf in vfs.iter().map(|one| one.bdf) {
        if let Some(Process { pid, name, .. }) = usage.guest(host.root, vf) {
            return Err(SriovError::Guest { bdf, vf, pid, name });
        }
        let mut uses = usage.of(host.root, host.kernel, vf);
        uses.retain(Use::is_blocking);
        if !uses.is_empty() && !force {
            let state = usage::state(&uses);
            return Err(SriovError::InUse { bdf, vf, state });
        }
    }
    Ok(())
}

/// A change of the number of one physical function's virtual ones.
struct Change<'a> {
    host: Host<'a>,
    bdf: HostBdf,
    progress: &'a mut dyn FnMut(u32, Duration),
}

impl Change<'_> {
    /// The functions are waited for without the lock: udev is not through before its rules are, and that of a saved
    /// binding runs `strait host bind`.
    fn run(&mut self, wanted: u32, force: bool) -> Result<(), SriovError> {
        let Self { host, bdf, .. } = *self;
        let active = self.make(wanted, force)?;
        let settled = match wanted {
            0 => Ok(()),
            _ => self.settle(wanted),
        };
        if settled.is_err()
            && active != wanted
            && let Ok(_lock) = journal::lock(host.root)
            // Meanwhile a guest may have come by one of those that are there.
            && check_unused(host, &Usage::late(host.root), bdf, &virtual_functions(host.root, bdf), true).is_ok()
        {
            self.undo(active, wanted);
        }
        settled
    }

    /// Has the driver make the functions in place of those there are, and says how many these were. The kernel goes
    /// from some to others only by none.
    fn make(&mut self, wanted: u32, force: bool) -> Result<u32, SriovError> {
        let Self { host, bdf, .. } = *self;
        let _lock = journal::lock(host.root)?;
        // Under the lock, since another command may just have changed it.
        let usage = Usage::late(host.root);
        let active = check_physical(host, &usage, &check::device(host.root, bdf)?, wanted)?;
        if active == wanted {
            return Ok(active);
        }
        check_unused(host, &usage, bdf, &virtual_functions(host.root, bdf), force)?;
        if active > 0 {
            self.remove(active)?;
        }
        if wanted == 0 {
            return Ok(active);
        }
        match self.set(wanted, wanted) {
            Ok(()) => Ok(active),
            // A further write would wait for the first one, and then take away what that has made.
            Err(failure @ SriovError::Pending { .. }) => Err(failure),
            Err(failure) => {
                self.undo(active, wanted);
                Err(failure)
            }
        }
    }

    /// Takes away the functions, `count` as the driver says, and what is remembered of them.
    fn remove(&mut self, count: u32) -> Result<(), SriovError> {
        let Self { host, bdf, .. } = *self;
        let functions: Vec<HostBdf> = virtual_links(host.root, bdf).collect();
        self.set(0, count)?;
        for vf in functions
            .into_iter()
            .filter(|vf| !host.root.function(*vf).exists())
        {
            journal::remove(host.root, vf)?;
            entry_limit::let_go(host, vf)?;
        }
        Ok(())
    }

    /// As it was, as far as that still goes, since the first failure is the one to tell. A number that is neither what
    /// was written nor 0 is another program's.
    fn undo(&mut self, before: u32, written: u32) {
        let now = active(self.host, self.bdf).ok();
        if now == Some(written) && self.remove(written).is_err() {
            return;
        }
        if before > 0 && matches!(now, Some(now) if now == written || now == 0) {
            let _ = self.set(before, before);
        }
    }

    /// Has the driver make or remove `count` functions.
    fn set(&mut self, wanted: u32, count: u32) -> Result<(), SriovError> {
        let Self { host, bdf, .. } = *self;
        let file = host.root.function(bdf).join("sriov_numvfs");
        let limit = WRITE_LIMIT + WRITE_LIMIT_EACH * count;
        let mut go_on = |waited| {
            (self.progress)(count_virtual_functions(host.root, bdf), waited);
            waited < limit
        };
        let written = self
            .host
            .kernel
            .write_while(&file, &wanted.to_string(), &mut go_on);
        written.map_err(|source| match is_pending(&source) {
            true => SriovError::Pending {
                bdf,
                made: count_virtual_functions(host.root, bdf),
                wanted,
                source,
            },
            false => SriovError::Write { bdf, wanted, source },
        })
    }

    /// Waits until all are there and udev has found their drivers: it keeps a file while it works.
    fn settle(&self, wanted: u32) -> Result<(), SriovError> {
        let Self { host, bdf, .. } = *self;
        let mut made = 0;
        for _ in 0..SETTLE_TRIES + wanted {
            made = count_virtual_functions(host.root, bdf);
            if made == wanted && !host.root.path("run/udev/queue").exists() {
                return Ok(());
            }
            self.host.kernel.pause(SETTLE_PAUSE);
        }
        match made == wanted {
            true => Ok(()),
            false => Err(SriovError::Missing { bdf, made, wanted }),
        }
    }
}

/// In the order of their numbers.
fn virtual_functions(root: &Root, bdf: HostBdf) -> Vec<VirtualFunction> {
    let names = Names::read(root);
    let functions = virtual_links(root, bdf).filter_map(|bdf| root.device(bdf).ok()?);
    functions
        .map(|device| {
            let interface = names.interfaces(device.bdf).into_iter().next();
            let address = |name: &String| root.text(format!("sys/class/net/{name}/address"));
            VirtualFunction {
                bdf: device.bdf,
                group: device.group,
                driver: device.driver,
                mac: interface.as_ref().and_then(address),
                interface,
            }
        })
        .collect()
}

//! What binding would do, found out before anything is touched.

use super::HostBdf;
use super::access::Host;
use super::binding::{Binding, BindingError};
use super::check;
use super::drivers::{is_quiet_driver, is_vfio_driver};
use super::entry_limit;
use super::error::BindError;
use super::group::Group;
use super::inventory::physical_function;
use super::journal::{self, Owner, UndoEntry};
use super::modules;
use super::refusal::CheckError;
use super::sysfs::{PciDevice, Root};
use super::usage::{self, LateUsage, Usage, Use};

/// The driver that gives any device to guests.
const VFIO_PCI: &str = "vfio-pci";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Addresses of the functions, as they were named.
    pub devices: Vec<HostBdf>,
    /// Whether what shares their groups comes along.
    pub group: bool,
    /// Who is to have them.
    pub driver: String,
    /// Whether they are taken though the host uses them.
    pub force: bool,
    /// Whether the same happens at each boot.
    pub save: bool,
    /// DMA mappings that each address space is to have room for, for a guest with an IOMMU of its own.
    pub dma_entries: Option<u32>,
    /// The process they are for, if they go back with its end.
    pub owner: Option<Owner>,
}

/// A device that will be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The function's address on the host.
    pub bdf: HostBdf,
    /// Name of its driver now, if it has one.
    pub from: Option<String>,
    /// What `driver_override` says now.
    pub override_driver: Option<String>,
    /// Uses that are overridden by force.
    pub uses: Vec<Use>,
    /// What the journal says of it already.
    pub(super) entry: Option<UndoEntry>,
}

/// What will be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) request: Request,
    limit: u32,
    /// Devices to move, in order.
    pub moves: Vec<Move>,
    /// Devices that are where they should be.
    pub ready: Vec<PciDevice>,
    /// Members of their groups that stay with the host and keep the devices from being passed.
    pub in_the_way: Vec<PciDevice>,
}

impl Plan {
    /// Whether the driver can be had, as far as that shows without loading a module: for who only looks.
    ///
    /// # Errors
    /// There is no such driver.
    pub fn check_driver(&self, root: &Root) -> Result<(), BindError> {
        let driver = &self.request.driver;
        let may_have = |one: &Move| modules::may_have_driver(root, one.bdf, driver);
        match self.moves.iter().all(may_have) {
            true => Ok(()),
            false => Err(BindingError::NotInKernel(driver.clone()).into()),
        }
    }

    /// The limit of DMA mappings as it is and as it will be, if it is to be raised.
    pub fn raises_limit(&self) -> Option<(u32, u32)> {
        let wanted = self.request.dma_entries?;
        (self.limit < wanted).then_some((self.limit, wanted))
    }

    /// All devices that are asked for.
    pub(super) fn devices(&self) -> Vec<HostBdf> {
        let moved = self.moves.iter().map(|one| one.bdf);
        moved.chain(self.ready.iter().map(|device| device.bdf)).collect()
    }

    /// The devices whose binding is made again at each boot: a device whose own driver gives it away needs no rule.
    pub fn lasting(&self) -> Vec<HostBdf> {
        let (driver, wanted) = (&self.request.driver, self.request.save);
        let moved = self.moves.iter().map(|one| one.bdf);
        let bound = self.ready.iter().filter(|device| device.driver_name() == driver);
        let all = moved.chain(bound.map(|device| device.bdf));
        all.filter(|_| wanted).collect()
    }
}

/// Looks whether `request` can be fulfilled, and how. Changes nothing.
///
/// # Errors
/// The first thing in the way.
pub fn plan(host: Host<'_>, request: Request) -> Result<Plan, BindError> {
    plan_with(host, &Usage::late(host.root), request)
}

/// The same where the host's use is known already.
pub(super) fn plan_with(host: Host<'_>, usage: &LateUsage<'_>, request: Request) -> Result<Plan, BindError> {
    if !journal::is_driver_name(&request.driver) {
        return Err(BindError::DriverName(request.driver));
    }
    let wanted = collect(host.root, &request)?;
    check_families(host, usage, &wanted)?;
    let mut plan = Plan {
        in_the_way: in_the_way(host.root, &wanted),
        limit: entry_limit::limit(host.root).unwrap_or(entry_limit::DEFAULT_LIMIT),
        request,
        moves: Vec::new(),
        ready: Vec::new(),
    };
    for device in wanted {
        if is_ready(&device, &plan.request.driver) {
            plan.ready.push(device);
        } else {
            plan.moves.push(plan_move(host, usage, &device, &plan.request)?);
        }
    }
    Ok(plan)
}

/// Bound to `driver`; who asks for vfio-pci is served by any driver that gives the device to guests, and some
/// virtual functions can be given by no other.
fn is_ready(device: &PciDevice, driver: &str) -> bool {
    device.driver.as_deref() == Some(driver) || (driver == VFIO_PCI && device.is_given)
}

/// The devices asked for, and with `group` their groups' other devices.
fn collect(root: &Root, request: &Request) -> Result<Vec<PciDevice>, BindError> {
    let mut wanted: Vec<PciDevice> = Vec::new();
    for &bdf in &request.devices {
        let device = check::device(root, bdf)?;
        let needs_group = request.group || is_vfio_driver(&request.driver);
        if needs_group || device.is_bridge {
            let number = check::check_grouped(root, &device)?;
            if request.group {
                let group = Group::read(root, number).map_err(|source| CheckError::Sysfs { bdf, source })?;
                let others = group.members.into_iter().filter(comes_along);
                wanted.extend(others.filter(|one| root.keeper(one.bdf).is_none()));
            }
        }
        wanted.push(device);
    }
    wanted.sort_by_key(|device| device.bdf);
    wanted.dedup_by_key(|device| device.bdf);
    Ok(wanted)
}

/// No virtual function with its physical one, not even by force: it would end before it is taken.
fn check_families(host: Host<'_>, usage: &LateUsage<'_>, wanted: &[PciDevice]) -> Result<(), BindError> {
    for vf in wanted.iter().map(|device| device.bdf) {
        let physical = physical_function(&host.root.function(vf));
        if let Some(physical) = physical.filter(|bdf| wanted.iter().any(|device| device.bdf == *bdf)) {
            let remedy = host
                .remedies
                .without_its_virtual_functions(host, usage, vf, physical);
            return Err(BindError::WithPhysical { vf, physical, remedy });
        }
    }
    Ok(())
}

/// Bridges stay, and so does what is given away already. What is behind a function vanishes with its driver.
fn comes_along(member: &PciDevice) -> bool {
    let stays = member.driver.as_deref().is_some_and(is_quiet_driver);
    !member.is_bridge && !member.is_given && !stays
}

fn in_the_way(root: &Root, wanted: &[PciDevice]) -> Vec<PciDevice> {
    let mut numbers: Vec<u32> = wanted.iter().filter_map(|device| device.group).collect();
    numbers.dedup();
    let groups = numbers
        .iter()
        .filter_map(|number| Group::read(root, *number).ok());
    let mut others: Vec<PciDevice> = groups
        .flat_map(|group| group.culprits().cloned().collect::<Vec<_>>())
        .collect();
    others.retain(|other| {
        let gone = [Some(other.bdf), root.keeper(other.bdf)];
        wanted.iter().all(|device| !gone.contains(&Some(device.bdf)))
    });
    others.sort_by_key(|other| other.bdf);
    others.dedup();
    others
}

fn plan_move(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    device: &PciDevice,
    request: &Request,
) -> Result<Move, BindError> {
    let bdf = device.bdf;
    let folder = host.root.function(bdf);
    if !folder.join("driver_override").exists() {
        return Err(BindError::NoOverride(bdf));
    }
    let entry = journal::read(host.root, bdf)?;
    let override_driver = Binding { host, bdf }.override_driver()?;
    let others = override_driver
        .as_ref()
        .filter(|driver| **driver != request.driver);
    if let Some(driver) = others
        && !request.force
    {
        let driver = driver.clone();
        return Err(BindError::Overridden { bdf, driver });
    }
    let mut uses = usage.of(host.root, host.kernel, bdf);
    uses.retain(Use::is_blocking);
    check_uses(host, usage, bdf, &uses, request.force)?;
    Ok(Move {
        bdf,
        from: device.driver.clone(),
        override_driver,
        uses,
        entry,
    })
}

/// With `force` only what outlasts it is in the way.
fn check_uses(
    host: Host<'_>,
    usage: &LateUsage<'_>,
    bdf: HostBdf,
    uses: &[Use],
    force: bool,
) -> Result<(), BindError> {
    let state = usage::state(uses);
    let lasting: Vec<&Use> = uses.iter().filter(|one| one.outlasts_force()).collect();
    if !lasting.is_empty() {
        let remedy = host.remedies.end_of_uses(host, usage, &lasting, bdf);
        return Err(BindError::Needed { bdf, state, remedy });
    }
    if uses.is_empty() || force {
        return Ok(());
    }
    let all: Vec<&Use> = uses.iter().collect();
    let remedy = host.remedies.end_of_uses(host, usage, &all, bdf);
    Err(BindError::InUse { bdf, state, remedy })
}

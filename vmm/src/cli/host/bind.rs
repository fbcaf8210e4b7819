//! `strait host bind`, `restore`, and what other tools call them.

use clap::Args;
use strait_vfio::host::Host;
use strait_vfio::host::{
    self, BindError, CheckError, HostBdf, Move, Plan, Request, Restored, Root, initramfs_commands,
    restorable, restore, ways_out,
};

use super::find::find_all;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Tone};

/// Give devices to vfio-pci, all of them or none.
#[derive(Debug, Args)]
pub(super) struct BindArgs {
    /// The devices: an address, vendor:device, a network interface or a disk.
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Take along what shares their IOMMU groups.
    #[arg(long)]
    group: bool,
    /// Who is to have them.
    #[arg(long, value_name = "NAME", default_value = "vfio-pci")]
    driver: String,
    /// Do the same at each boot.
    #[arg(long)]
    save: bool,
    /// Raise the kernel's limit of DMA mappings (dma_entry_limit of vfio_iommu_type1) to N, for guests with an IOMMU
    /// of their own; until the devices are restored, or the next boot.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    dma_entries: Option<u32>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take devices that the host uses, or that another tool has overridden; not the root file system, nor
    /// what its driver would wait for in vain.
    #[arg(long)]
    force: bool,
}

/// Give a device to a driver, in driverctl's order of words.
#[derive(Debug, Args)]
pub(super) struct OverrideArgs {
    /// The device.
    device: String,
    /// The driver.
    driver: String,
    /// Take it though the host uses it.
    #[arg(long)]
    force: bool,
}

/// Give devices back to the drivers they had.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The devices.
    #[arg(
        value_name = "DEVICE",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    devices: Vec<String>,
    /// Everything that was taken, or is bound at each boot.
    #[arg(long)]
    all: bool,
    /// Also from processes that use them, and from drivers that took them since.
    #[arg(long)]
    force: bool,
}

impl From<OverrideArgs> for BindArgs {
    fn from(args: OverrideArgs) -> Self {
        Self {
            devices: vec![args.device],
            group: false,
            driver: args.driver,
            save: false,
            dma_entries: None,
            dry_run: false,
            force: args.force,
        }
    }
}

impl BindArgs {
    pub(super) fn run(self, host: Host<'_>, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        let request = Request {
            devices: find_all(host.root, &self.devices)?,
            group: self.group,
            driver: self.driver.clone(),
            force: self.force,
            save: self.save,
            dma_entries: self.dma_entries,
            owner: None,
        };
        let plan = host::plan(host, request).map_err(failure)?;
        if self.dry_run {
            plan.check_driver(host.root).map_err(failure)?;
        } else {
            host::bind(host, &plan).map_err(failure)?;
        }
        self.tell(host, screen, &plan)
    }

    fn tell(&self, host: Host<'_>, screen: &mut Screen<'_>, plan: &Plan) -> Result<u8, Failure> {
        let driver = &self.driver;
        let would = if self.dry_run {
            "would go from"
        } else {
            "went from"
        };
        for Move { bdf, from, uses, .. } in &plan.moves {
            let from = from.as_deref().unwrap_or("no driver");
            let bdf = screen.paint(Tone::Heading, &bdf.to_string());
            screen.line(format!("{bdf} {would} {from} to {driver}"))?;
            for one in uses {
                screen.line(screen.paint(Tone::Warning, &format!("    though {one}")))?;
            }
        }
        for ready in &plan.ready {
            let (bdf, own) = (ready.bdf, ready.driver_name());
            screen.line(match own == driver {
                true => format!("{bdf} is bound to {driver} already"),
                false => format!("{bdf} is ready as it is: its driver {own} gives it to guests itself"),
            })?;
        }
        let moved = plan.moves.iter().map(|one| one.bdf);
        let wanted: Vec<HostBdf> = moved.chain(plan.ready.iter().map(|one| one.bdf)).collect();
        let ways_out = ways_out(host, &wanted, &plan.in_the_way);
        for (other, way_out) in plan.in_the_way.iter().zip(ways_out) {
            let (bdf, driver) = (other.bdf, other.driver_name());
            let text = format!("{bdf} ({driver}) shares the group and must go too; {way_out}");
            screen.wrapped("", &screen.paint(Tone::Warning, &text))?;
        }
        if let Some((from, to)) = plan.raises_limit() {
            screen.line(format!(
                "dma_entry_limit {would} {from} to {to}, for guests that start from now on"
            ))?;
        } else if self.dma_entries.is_some() {
            screen.line("dma_entry_limit is as high already")?;
        }
        if !plan.lasting().is_empty() && !self.dry_run {
            tell_saved(host.root, screen, plan)?;
        }
        Ok(0)
    }
}

/// That the binding lasts, and what is earlier than it at boot.
fn tell_saved(root: &Root, screen: &mut Screen<'_>, plan: &Plan) -> Result<(), Failure> {
    screen.line("The same will be done at each boot, until strait host restore.")?;
    let mut drivers: Vec<&str> = plan.moves.iter().filter_map(|one| one.from.as_deref()).collect();
    drivers.sort_unstable();
    drivers.dedup();
    if drivers.is_empty() {
        return Ok(());
    }
    let text = format!(
        "Where the initramfs loads {}, the device is taken from there once the system starts, unless it is in use by \
         then. These commands give it to vfio-pci in the initramfs already; the last one also after a restore:",
        drivers.join(" or ")
    );
    screen.wrapped("", &text)?;
    for command in initramfs_commands(root) {
        screen.line(format!("    {command}"))?;
    }
    Ok(())
}

/// A driver's name that cannot be one is a matter of typing.
fn failure(error: BindError) -> Failure {
    match error {
        BindError::DriverName(_) | BindError::Check(CheckError::Twice(_)) => {
            Failure::usage(error.to_string())
        }
        error => error.into(),
    }
}

impl RestoreArgs {
    pub(super) fn run(self, host: Host<'_>, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        let devices = match self.all {
            true => restorable(host),
            false => find_all(host.root, &self.devices)?,
        };
        if devices.is_empty() {
            screen.line("Nothing is taken.")?;
        }
        let mut failures: Vec<String> = Vec::new();
        for bdf in devices {
            match restore(host, bdf, self.force) {
                Ok(restored) => tell(screen, bdf, &restored)?,
                Err(error) => failures.push(Failure::from(error).message),
            }
        }
        match failures.is_empty() {
            true => Ok(0),
            false => Err(Failure {
                code: 1,
                message: failures.join("; "),
            }),
        }
    }
}

/// What became of a device.
pub(super) fn tell(screen: &mut Screen<'_>, bdf: HostBdf, restored: &Restored) -> Result<(), Failure> {
    let name = screen.paint(Tone::Heading, &bdf.to_string());
    let text = match restored {
        Restored::To(Some(driver)) => format!("{name} went back to {driver}"),
        Restored::To(None) => format!("{name} went back to having no driver"),
        Restored::Untouched(Some(driver)) => format!("{name} was not taken, {driver} has it"),
        Restored::Untouched(None) => format!("{name} was not taken, no driver has it"),
        Restored::Gone => format!("{name} is gone and forgotten"),
    };
    Ok(screen.line(text)?)
}

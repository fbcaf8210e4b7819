//! What to do about a device: tried by the rules of the command that it names before it is told.

use super::access::{Host, Remedies};
use super::drivers::is_vfio_driver;
use super::error::BindError;
use super::inventory::physical_function;
use super::kernel::Kernel;
use super::modules::{self, Modules};
use super::plan::{Request, plan_with};
use super::sysfs::{PciDevice, Root};
use super::usage::{LateUsage, Usage, Use};
use super::{HostBdf, restore, sriov};

/// What is to be done about a bridge whose driver is not one of the kernel's own.
const STAYS: &str = "stays with the host, so pass the device from a slot with a group of its own";

impl<'a> Host<'a> {
    /// The host below `root`, changed through `kernel`. What helps there is tried by the rules of all commands.
    pub fn new(root: &'a Root, kernel: &'a dyn Kernel) -> Self {
        Self {
            root,
            kernel,
            remedies: &ByRules,
        }
    }
}

/// Remedies that the commands would not refuse.
struct ByRules;

impl Remedies for ByRules {
    fn to_bind(&self, host: Host<'_>, usage: &LateUsage<'_>, device: &PciDevice) -> String {
        let bdf = device.bdf;
        // A virtual GPU of NVIDIA is given by nvidia itself, once it has a type.
        let types = host.root.function(bdf).join("nvidia/creatable_vgpu_types");
        if device.is_virtual && types.exists() {
            let folder = format!("/sys/bus/pci/devices/{bdf}/nvidia");
            return format!(
                "choose what kind of GPU it is to be from {folder}/creatable_vgpu_types and write its number into \
             {folder}/current_vgpu_type"
            );
        }
        let command = format!("strait host bind {bdf}");
        match plan_with(host, usage, request(bdf, false)) {
            Ok(plan) => {
                // Bound it could still not be passed.
                let physical = physical_function(&host.root.function(bdf));
                match plan.in_the_way.iter().find(|other| Some(other.bdf) == physical) {
                    Some(other) => self.without_its_virtual_functions(host, usage, bdf, other.bdf),
                    None => format!("give it up with: {command}"),
                }
            }
            Err(error) => before(&error, &command),
        }
    }

    fn to_bind_group(&self, host: Host<'_>, usage: &LateUsage<'_>, bdf: HostBdf) -> String {
        let command = format!("strait host bind --group {bdf}");
        match plan_with(host, usage, request(bdf, true)) {
            Ok(plan) => match plan.in_the_way.first() {
                None => format!("bind them to vfio-pci too, with: {command}"),
                Some(other) => format!("{} ({}) {STAYS}", other.bdf, other.driver_name()),
            },
            Err(error) => before(&error, &command),
        }
    }

    fn without_its_virtual_functions(
        &self,
        host: Host<'_>,
        usage: &LateUsage<'_>,
        vf: HostBdf,
        physical: HostBdf,
    ) -> String {
        format!(
            "{vf} would vanish with its physical function, so no virtual function of {physical} can be passed from this slot; put the card \
         into a slot whose ports have ACS, or pass {physical} itself: {}, then strait host bind {physical}",
            no_virtual_functions(host, usage, physical)
        )
    }

    fn end_of_uses(&self, host: Host<'_>, usage: &LateUsage<'_>, uses: &[&Use], bdf: HostBdf) -> String {
        let end = |one: &&Use| match one {
            Use::VirtualFunctions { .. } => no_virtual_functions(host, usage, bdf),
            one => one.remedy(bdf),
        };
        if let Some(endless) = uses.iter().find(|one| one.is_endless()) {
            return end(endless);
        }
        let mut ends: Vec<String> = uses.iter().map(end).collect();
        ends.dedup();
        ends.join("; then ")
    }

    fn to_own_driver(&self, host: Host<'_>, usage: &LateUsage<'_>, device: &PciDevice) -> String {
        let bdf = device.bdf;
        let command = format!("give it back with: strait host restore {bdf}");
        match restore::would_move(host, usage, device) {
            Ok(true) => command,
            Err(error) => error.to_string(),
            Ok(false) => {
                let modalias = modules::modalias(host.root, bdf).unwrap_or_default();
                match Modules::read(host.root).wanting(&modalias).first() {
                    Some(module) if !is_vfio_driver(module) => format!("load it with: modprobe {module}"),
                    _ => "this kernel knows none for it".to_owned(),
                }
            }
        }
    }
}

/// How each of `others`, which keep `wanted` from being passed, gets out of the way.
pub fn ways_out(host: Host<'_>, wanted: &[HostBdf], others: &[PciDevice]) -> Vec<String> {
    let usage = Usage::late(host.root);
    let way_out = |other| out_of_the_way(host, &usage, wanted, other);
    others.iter().map(way_out).collect()
}

fn out_of_the_way(host: Host<'_>, usage: &LateUsage<'_>, wanted: &[HostBdf], other: &PciDevice) -> String {
    let is_virtual = |bdf: &&HostBdf| physical_function(&host.root.function(**bdf)) == Some(other.bdf);
    match wanted.iter().find(is_virtual) {
        Some(&vf) => host
            .remedies
            .without_its_virtual_functions(host, usage, vf, other.bdf),
        None if other.is_bridge => format!("it {STAYS}"),
        None => host.remedies.to_bind(host, usage, other),
    }
}

fn no_virtual_functions(host: Host<'_>, usage: &LateUsage<'_>, physical: HostBdf) -> String {
    match sriov::check_change(host, usage, physical, 0) {
        Ok(()) => format!("strait host vf {physical} 0"),
        Err(error) => error.to_string(),
    }
}

/// What must be done before `command` does not end in `error`.
fn before(error: &BindError, command: &str) -> String {
    match error {
        BindError::InUse { state, remedy, bdf } => format!("{bdf} {state}: {remedy}, then {command}"),
        BindError::WithPhysical { remedy, .. } => remedy.clone(),
        error => error.to_string(),
    }
}

fn request(bdf: HostBdf, group: bool) -> Request {
    Request {
        devices: vec![bdf],
        group,
        driver: "vfio-pci".to_owned(),
        force: false,
        save: false,
        dma_entries: None,
        owner: None,
    }
}

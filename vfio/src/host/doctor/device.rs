//! One device: group, driver, resets, BARs, ROM, and who uses it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::slice;

use strait_devices::pci::firmware;

use super::{Finding, Wishes};
use crate::host::HostBdf;
use crate::host::access::Host;
use crate::host::boot;
use crate::host::check;
use crate::host::drivers::is_quiet_driver;
use crate::host::group::Group;
use crate::host::inventory::{override_drivers, reset_methods};
use crate::host::iommu;
use crate::host::kernel::Kernel;
use crate::host::refusal::CheckError;
use crate::host::resources::Decoded;
use crate::host::sysfs::{PciDevice, Root};
use crate::host::usage::{LateUsage, Use, boot_screen};

/// Class code of a graphics card, the upper byte (PCI Code and ID Assignment §1).
const CLASS_DISPLAY: u32 = 0x03;

pub(super) fn examine(host: Host<'_>, usage: &LateUsage<'_>, bdf: HostBdf, wishes: &Wishes) -> Vec<Finding> {
    let (question, check) = ("Is it in an IOMMU group?", "group");
    let found = check::device(host.root, bdf).and_then(|device| {
        let number = check::check_grouped(host.root, &device)?;
        let group = Group::read(host.root, number).map_err(|source| CheckError::Sysfs { bdf, source })?;
        Ok((device, group))
    });
    let mut findings = vec![Finding::of(check, question, &found, |(_, group)| {
        format!("yes, in group {}", group.number)
    })];
    if let Ok((device, group)) = &found {
        findings.extend(ownership(host, usage, device, group));
        findings.extend(hardware(host, device, wishes));
    }
    findings.into_iter().map(|finding| finding.about(bdf)).collect()
}

/// Who has the device and its group.
fn ownership(host: Host<'_>, usage: &LateUsage<'_>, device: &PciDevice, group: &Group) -> Vec<Finding> {
    let bdf = device.bdf;
    let bound = check::check_driver(host, usage, device);
    let mut findings = Vec::new();
    if bound.is_err() {
        let mut found = usage.of(host.root, host.kernel, bdf);
        found.extend(in_transit(host, bdf));
        findings.push(uses(host, usage, &found, bdf));
    }
    findings.push(Finding::of("driver", "Is it bound to vfio-pci?", &bound, |()| {
        format!("yes, to {}", device.driver_name())
    }));
    let others: Vec<_> = group
        .culprits()
        .filter(|member| member.bdf != bdf && host.root.keeper(member.bdf) != Some(bdf))
        .cloned()
        .collect();
    let viable = match others.is_empty() {
        true => Ok(()),
        false => check::check_group(host, usage, group, bdf),
    };
    let question = "Does the group hold only what may be passed?";
    findings.push(Finding::of("group-members", question, &viable, |()| {
        members(group)
    }));
    let free = check::check_reserved(host.root, group.number, bdf);
    let question = "Is all of its address space free?";
    findings.push(Finding::of("reserved-regions", question, &free, |()| {
        reserved(host.root, group.number)
    }));
    if bound.is_ok() && others.is_empty() {
        let opened = check::check_file(host.root, group, bdf);
        let question = "Can its group be opened?";
        findings.push(Finding::of("access", question, &opened, |()| {
            format!("yes, /dev/vfio/{}", group.number)
        }));
    }
    findings
}

/// Whether the kernel works on it, by a file that takes the device's lock.
fn in_transit(host: Host<'_>, bdf: HostBdf) -> Option<Use> {
    let found = override_drivers(host.kernel, &[host.root.function(bdf)]);
    found.iter().any(Result::is_err).then(Use::in_transit)
}

fn uses(host: Host<'_>, usage: &LateUsage<'_>, uses: &[Use], bdf: HostBdf) -> Finding {
    let question = "Can the host do without it?";
    let blocking: Vec<&Use> = uses.iter().filter(|one| one.is_blocking()).collect();
    let evidence: Vec<String> = uses.iter().map(Use::to_string).collect();
    let evidence = match evidence.is_empty() {
        true => "yes, nothing uses it".to_owned(),
        false => evidence.join(", "),
    };
    let finding = Finding::pass("in-use", question, evidence);
    let remedy = host.remedies.end_of_uses(host, usage, &blocking, bdf);
    match (blocking.is_empty(), blocking.iter().all(|one| one.is_unknown())) {
        (true, _) => finding,
        (_, true) => finding.unknown(remedy),
        _ => finding.fail(remedy),
    }
}

/// Each member, its driver, and whether it must go.
fn members(group: &Group) -> String {
    let member = |one: &PciDevice| {
        let role = match one.driver.as_deref() {
            Some(_) if one.is_given => "given away",
            Some(driver) if is_quiet_driver(driver) => "may stay",
            None => "may stay",
            Some(_) => "must go",
        };
        format!("{} ({}, {role})", one.bdf, one.driver_name())
    };
    let members: Vec<String> = group.members.iter().map(member).collect();
    members.join(", ")
}

fn reserved(root: &Root, group: u32) -> String {
    let regions = iommu::reserved_regions(root, group);
    let region = |one: &iommu::ReservedRegion| format!("{:#x}-{:#x} ({})", one.first, one.last, one.kind);
    let regions: Vec<String> = regions.iter().map(region).collect();
    match regions.is_empty() {
        true => "nothing is reserved".to_owned(),
        false => format!("all but {}", regions.join(", ")),
    }
}

/// What the device is.
fn hardware(host: Host<'_>, device: &PciDevice, wishes: &Wishes) -> Vec<Finding> {
    let folder = host.root.function(device.bdf);
    let decoded = Decoded::of(&folder);
    let mut findings = vec![resets(&folder), bars(decoded.as_ref(), wishes)];
    if device.class >> 16 == CLASS_DISPLAY {
        findings.push(boot_framebuffer(host.root, device.bdf));
    }
    let rom_bytes = decoded.map_or(0, |decoded| decoded.rom);
    findings.extend(rom(host.kernel, &folder, device.bdf, rom_bytes));
    findings
}

fn resets(folder: &Path) -> Finding {
    let question = "Can it be reset?";
    let methods = reset_methods(folder);
    let finding = Finding::pass("reset", question, methods.join(", "));
    match methods.is_empty() {
        false => finding,
        true => Finding::pass("reset", question, "the kernel knows no way").warn(
            "its state stays from guest to guest; where the next guest finds it hung, suspend the host or \
             turn it off and on",
        ),
    }
}

/// By the rule that places them at the start of a guest.
fn bars(decoded: Option<&Decoded>, wishes: &Wishes) -> Finding {
    let question = "Do its BARs fit into the guest?";
    let Some(decoded) = decoded else {
        let evidence = "sysfs does not show them";
        return Finding::pass("bars", question, evidence).unknown("strait run tells at its start");
    };
    let below = [decoded.below_4_gib()];
    let window = wishes
        .low_windows
        .iter()
        .find(|window| firmware::fits(&below, (*window).clone()));
    let widest = wishes
        .low_windows
        .iter()
        .max_by_key(|window| window.end - window.start);
    let room = window.or(widest).map_or(0, |window| window.end - window.start);
    let total = |sizes: &[u64]| in_units(sizes.iter().copied().fold(0, u64::saturating_add));
    let evidence = format!(
        "{} of {} below 4 GiB, {} of {} above",
        total(&below[0]),
        in_units(room),
        total(&decoded.high),
        in_units(wishes.high_window.end - wishes.high_window.start)
    );
    let finding = Finding::pass("bars", question, evidence);
    match window.is_some() && firmware::fits(slice::from_ref(&decoded.high), wishes.high_window.clone()) {
        true => finding,
        false => finding.fail("make its BARs smaller by resource1_resize in its folder in /sys; each needs a place at a multiple of its size"),
    }
}

fn in_units(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes >= 8 << 30 || bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes.div_ceil(1 << 30)),
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} KiB", bytes.div_ceil(1 << 10)),
    }
}

/// The firmware's frame buffer stays in the card's BAR until its driver or the user takes it away.
fn boot_framebuffer(root: &Root, bdf: HostBdf) -> Finding {
    let question = "Does the boot screen leave the card alone?";
    let check = "boot-framebuffer";
    if boot_screen(root) != Some(bdf) {
        return Finding::pass(check, question, "yes, the firmware used another card or none");
    }
    let memory = root.text("proc/iomem").unwrap_or_default();
    let holders = ["efifb", "simplefb", "vesafb", "BOOTFB"];
    match holders.iter().find(|name| memory.contains(**name)) {
        Some(name) => Finding::pass(
            check,
            question,
            format!("{name} still holds the boot screen's memory"),
        )
        .fail(match boot::with_option(root, "initcall_blacklist=sysfb_init") {
            Some(add) => format!("{add}; before Linux 5.15 the option is video=efifb:off"),
            None => {
                "initcall_blacklist=sysfb_init is on the command line already; unbind the driver of the boot \
                     screen in /sys/bus/platform/drivers"
                    .to_owned()
            }
        }),
        None => Finding::pass(
            check,
            question,
            "it is the boot screen, but nothing holds its memory",
        )
        .warn("its ROM may have been changed at boot; if a guest sees no picture, pass a ROM file"),
    }
}

/// Expansion ROMs start with 55 AA (PCI Firmware Specification §5.1.1). Only root may look.
fn rom(kernel: &dyn Kernel, folder: &Path, bdf: HostBdf, bytes: u64) -> Option<Finding> {
    let question = "Can its ROM be read?";
    if bytes == 0 {
        return None;
    }
    let file = folder.join("rom");
    // The first write lets the next read switch the ROM on for as long as it lasts.
    if kernel.write(&file, "1").is_err() {
        let evidence = format!("{} of ROM, which only root can read", in_units(bytes));
        let finding = Finding::pass("rom", question, evidence);
        return Some(finding.unknown(format!("sudo strait host doctor {bdf} tells")));
    }
    let mut start = [0; 2];
    let read = File::open(&file).and_then(|mut file| file.read_exact(&mut start));
    let _ = kernel.write(&file, "0");
    let finding = |evidence: String| Finding::pass("rom", question, evidence);
    let remedy =
        "matters only where a guest starts from the device or shows its picture; pass a ROM file then";
    Some(match (read, start) {
        (Ok(()), [0x55, 0xaa]) => finding(format!("yes, {}", in_units(bytes))),
        (Ok(()), _) => finding("it does not start with 55 AA".to_owned()).warn(remedy),
        (Err(error), _) => finding(format!("no: {error}")).warn(remedy),
    })
}

//! One device: group, driver, resets, BARs, ROM, and who uses it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Finding, Wishes};
use crate::host::HostBdf;
use crate::host::boot;
use crate::host::check::{self, CheckError};
use crate::host::group::{Group, is_quiet_driver};
use crate::host::inventory::reset_methods;
use crate::host::iommu;
use crate::host::kernel::Kernel;
use crate::host::remedy;
use crate::host::sysfs::{PciDevice, Root, read_text};
use crate::host::usage::{Usage, Use, boot_screen};

/// Class code of a graphics card, the upper byte (PCI Code and ID Assignment §1).
const CLASS_DISPLAY: u32 = 0x03;
/// `IORESOURCE_MEM`, `IORESOURCE_MEM_64` (linux/ioport.h).
const RESOURCE_MEM: u64 = 0x200;
const RESOURCE_MEM_64: u64 = 0x10_0000;
/// BARs come first in the file `resource`, then the ROM.
const BARS: usize = 6;

pub(super) fn examine(
    root: &Root,
    kernel: &dyn Kernel,
    usage: &Usage,
    bdf: HostBdf,
    wishes: &Wishes,
) -> Vec<Finding> {
    let (question, check) = ("Is it in an IOMMU group?", "group");
    let found = check::device(root, bdf).and_then(|device| {
        let number = check::check_grouped(root, &device)?;
        let group = Group::read(root, number).map_err(|source| CheckError::Sysfs { bdf, source })?;
        Ok((device, group))
    });
    let mut findings = vec![Finding::of(check, question, &found, |(_, group)| {
        format!("yes, in group {}", group.number)
    })];
    if let Ok((device, group)) = &found {
        findings.extend(ownership(root, kernel, usage, device, group));
        findings.extend(hardware(root, kernel, device, wishes));
    }
    findings.into_iter().map(|finding| finding.about(bdf)).collect()
}

/// Who has the device and its group.
fn ownership(
    root: &Root,
    kernel: &dyn Kernel,
    usage: &Usage,
    device: &PciDevice,
    group: &Group,
) -> Vec<Finding> {
    let bdf = device.bdf;
    let bound = check::check_driver(root, kernel, device);
    let mut findings = Vec::new();
    if bound.is_err() {
        findings.push(uses(root, kernel, &usage.of(root, kernel, bdf), bdf));
    }
    findings.push(Finding::of("driver", "Is it bound to vfio-pci?", &bound, |()| {
        format!("yes, to {}", device.driver_name())
    }));
    let others: Vec<_> = group
        .culprits()
        .filter(|member| member.bdf != bdf && root.keeper(member.bdf) != Some(bdf))
        .cloned()
        .collect();
    let viable = match others.is_empty() {
        true => Ok(()),
        false => check::check_group(root, kernel, group, bdf),
    };
    let question = "Does the group hold only what may be passed?";
    findings.push(Finding::of("group-members", question, &viable, |()| {
        members(group)
    }));
    let free = check::check_reserved(root, group.number, bdf);
    let question = "Is all of its address space free?";
    findings.push(Finding::of("reserved-regions", question, &free, |()| {
        reserved(root, group.number)
    }));
    if bound.is_ok() && others.is_empty() {
        let opened = check::check_file(root, group, bdf);
        let question = "Can its group be opened?";
        findings.push(Finding::of("access", question, &opened, |()| {
            format!("yes, /dev/vfio/{}", group.number)
        }));
    }
    findings
}

fn uses(root: &Root, kernel: &dyn Kernel, uses: &[Use], bdf: HostBdf) -> Finding {
    let question = "Can the host do without it?";
    let blocking: Vec<&Use> = uses.iter().filter(|one| one.is_blocking()).collect();
    let evidence: Vec<String> = uses.iter().map(Use::to_string).collect();
    let evidence = match evidence.is_empty() {
        true => "yes, nothing uses it".to_owned(),
        false => evidence.join(", "),
    };
    let finding = Finding::pass("in-use", question, evidence);
    let remedy = remedy::end_of_uses(root, kernel, &blocking, bdf);
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
fn hardware(root: &Root, kernel: &dyn Kernel, device: &PciDevice, wishes: &Wishes) -> Vec<Finding> {
    let folder = root.function(device.bdf);
    let resources = resources(&folder);
    let mut findings = vec![resets(&folder), bars(&resources, wishes)];
    if device.class >> 16 == CLASS_DISPLAY {
        findings.push(boot_framebuffer(root, device.bdf));
    }
    findings.extend(rom(kernel, &folder, device.bdf, &resources));
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

/// First address, last address and flags of each BAR and the ROM.
fn resources(folder: &Path) -> Vec<(u64, u64, u64)> {
    let text = read_text(&folder.join("resource")).unwrap_or_default();
    let resource = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
        Some((number()?, number()?, number()?))
    };
    text.lines().take(BARS + 1).map_while(resource).collect()
}

fn size(&(first, last, _): &(u64, u64, u64)) -> u64 {
    match last {
        0 => 0,
        last => (last.saturating_sub(first)).saturating_add(1),
    }
}

fn bars(resources: &[(u64, u64, u64)], wishes: &Wishes) -> Finding {
    let question = "Do its BARs fit into the guest?";
    if resources.is_empty() {
        let evidence = "sysfs does not show them";
        return Finding::pass("bars", question, evidence).unknown("strait run tells at its start");
    }
    let total = |wanted: u64| {
        let of_kind = resources.iter().take(BARS);
        let of_kind = of_kind.filter(|(_, _, flags)| flags & (RESOURCE_MEM | RESOURCE_MEM_64) == wanted);
        of_kind.map(size).fold(0, u64::saturating_add)
    };
    let (low, high) = (total(RESOURCE_MEM), total(RESOURCE_MEM | RESOURCE_MEM_64));
    let low_window = wishes.low_window.end - wishes.low_window.start;
    let evidence = format!(
        "{} of {} below 4 GiB, {} of {} above",
        in_units(low),
        in_units(low_window),
        in_units(high),
        in_units(wishes.high_window_bytes)
    );
    let finding = Finding::pass("bars", question, evidence);
    match low <= low_window && high <= wishes.high_window_bytes {
        true => finding,
        false => finding.fail("make its BARs smaller by resource1_resize in its folder in /sys"),
    }
}

fn in_units(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes >= 1 << 30 => format!("{} GiB", bytes.div_ceil(1 << 30)),
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
fn rom(kernel: &dyn Kernel, folder: &Path, bdf: HostBdf, resources: &[(u64, u64, u64)]) -> Option<Finding> {
    let question = "Can its ROM be read?";
    let bytes = resources.get(BARS).map(size).filter(|bytes| *bytes > 0)?;
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

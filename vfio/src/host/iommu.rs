//! The host's IOMMU as firmware and kernel describe it.

use super::boot;
use super::sysfs::Root;

/// What the firmware tells of an IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    /// An ACPI table DMAR: VT-d.
    Intel,
    /// An ACPI table IVRS: AMD-Vi.
    Amd,
    /// No IOMMU of either kind.
    Nothing,
}

/// A range of device addresses that the kernel keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReservedRegion {
    pub(super) first: u64,
    pub(super) last: u64,
    /// `direct`, `direct-relaxable`, `reserved`, `msi`.
    pub(super) kind: String,
}

pub(super) fn firmware(root: &Root) -> Firmware {
    let has = |table: &str| root.path("sys/firmware/acpi/tables").join(table).exists();
    if has("DMAR") {
        Firmware::Intel
    } else if has("IVRS") {
        Firmware::Amd
    } else {
        Firmware::Nothing
    }
}

/// Units that the kernel drives, `dmar0` or `ivhd0`.
pub(super) fn units(root: &Root) -> Vec<String> {
    root.names("sys/class/iommu")
}

/// What keeps the IOMMU off, as one remedy.
pub(super) fn remedy(root: &Root) -> String {
    let option = match firmware(root) {
        Firmware::Intel => "intel_iommu=on",
        Firmware::Amd => "amd_iommu=force_enable",
        Firmware::Nothing => {
            let boot = match boot::given(root, &["intel_iommu=on"]) {
                Some(_) => "",
                None => " and boot the host with intel_iommu=on (Intel; AMD needs no option)",
            };
            return format!("turn it on in the firmware (VT-d, AMD-Vi or IOMMU){boot}");
        }
    };
    let off = boot::given(root, &["intel_iommu=off", "amd_iommu=off", "iommu=off"]);
    match (off, firmware(root), boot::with_option(root, option)) {
        (Some(off), Firmware::Intel, Some(add)) => {
            format!("take {off} from the kernel's command line and {add}")
        }
        (Some(off), ..) => format!("take {off} from the kernel's command line and reboot"),
        (None, _, Some(add)) => add,
        (None, _, None) => format!(
            "{option} is on the kernel's command line already, so its log says why it does not help: \
             dmesg | grep -e DMAR -e AMD-Vi -e IOMMU"
        ),
    }
}

/// How interrupts get remapped, and what does without.
pub(super) fn remapping_remedy(root: &Root) -> String {
    let turn_on = match boot::given(root, &["intremap=off", "nointremap", "iommu=off"]) {
        Some(off) => format!("take {off} from the kernel's command line and reboot"),
        None => "turn on interrupt remapping (x2APIC) in the firmware".to_owned(),
    };
    format!(
        "{turn_on}; or, for a guest you trust, set the module option vfio_iommu_type1.allow_unsafe_interrupts=1, at \
         the cost that the guest can send the host any interrupt"
    )
}

/// The ranges that group `number` cannot use for DMA, a line `first last kind` each.
pub(super) fn reserved_regions(root: &Root, number: u32) -> Vec<ReservedRegion> {
    let text = root
        .text(format!("sys/kernel/iommu_groups/{number}/reserved_regions"))
        .unwrap_or_default();
    let region = |line: &str| {
        let mut words = line.split_whitespace();
        let mut address = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
        let (first, last) = (address()?, address()?);
        let kind = words.next()?.to_owned();
        Some(ReservedRegion { first, last, kind })
    };
    text.lines().filter_map(region).collect()
}

/// Address bits of VT-d unit `name`: MGAW, bits 21:16 of the capability register, plus one (VT-d §11.4.2).
pub(super) fn width_bits(root: &Root, name: &str) -> Option<u32> {
    let text = root.text(format!("sys/class/iommu/{name}/intel-iommu/cap"))?;
    let capability = u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
    Some(((capability >> 16) & 0x3f) as u32 + 1)
}

/// Whether the kernel lets us see its interrupts at all.
pub(super) fn shows_interrupts(root: &Root) -> bool {
    root.path("proc/interrupts").exists()
}

/// Whether interrupts go through remapping: the kernel then writes IR- before its controllers' names.
pub(super) fn remaps_interrupts(root: &Root) -> bool {
    let text = root.text("proc/interrupts").unwrap_or_default();
    text.split_whitespace().any(|word| word.starts_with("IR-"))
}

/// Whether VFIO is told to do without remapping. A parameter that is not there yet has its default.
pub(super) fn allows_unsafe_interrupts(root: &Root) -> bool {
    let value = root.text("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    matches!(value.as_deref(), Some("Y" | "1"))
}

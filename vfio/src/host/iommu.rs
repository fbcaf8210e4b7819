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
    let off = boot::given(root, &["intel_iommu=off", "amd_iommu=off", "iommu=off"]);
    let option = match firmware(root) {
        Firmware::Intel => "intel_iommu=on",
        Firmware::Amd => "amd_iommu=force_enable",
        Firmware::Nothing => return firmware_remedy(root, off),
    };
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

/// Where the firmware tells of no IOMMU, none can be on, and what keeps it off next is told at once.
fn firmware_remedy(root: &Root, off: Option<&str>) -> String {
    let take = off.map(|off| format!("take {off} from the kernel's command line"));
    let needs_option = !is_amd(root) && boot::given(root, &["intel_iommu=on"]).is_none();
    let boot =
        needs_option.then(|| "boot the host with intel_iommu=on (Intel; AMD needs no option)".to_owned());
    let turn_on = Some("turn it on in the firmware (VT-d, AMD-Vi or IOMMU)".to_owned());
    let steps: Vec<String> = [turn_on, take, boot].into_iter().flatten().collect();
    steps.join(" and ")
}

/// Whether the CPU is AMD's, or Hygon's, which have the same IOMMU.
fn is_amd(root: &Root) -> bool {
    let text = root.text("proc/cpuinfo").unwrap_or_default();
    let vendor = text.lines().find(|line| line.starts_with("vendor_id"));
    vendor.is_some_and(|line| line.contains("AMD") || line.contains("Hygon"))
}

/// How interrupts get remapped, and what does without.
pub(super) fn remapping_remedy(root: &Root) -> String {
    let off = boot::given(root, &["intremap=off", "nointremap", "iommu=off"]);
    let turn_on = match (off, firmware(root)) {
        (Some(off), _) => format!("take {off} from the kernel's command line and reboot"),
        // An I/O APIC that the table leaves out is enough for Linux to do without (`check_ioapic_information`,
        // drivers/iommu/amd/init.c).
        (None, Firmware::Amd) => {
            "dmesg | grep AMD-Vi says why: update the firmware, or tell the kernel what the \
             firmware's table leaves out, by its options ivrs_ioapic and ivrs_hpet"
                .to_owned()
        }
        (None, _) => "turn on interrupt remapping (x2APIC) in the firmware".to_owned(),
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

/// Address bits of unit `name`.
pub(super) fn width_bits(root: &Root, name: &str) -> Option<u32> {
    let vtd = register(root, name, VTD).map(vtd_width);
    vtd.or_else(|| amd_width(register(root, name, AMD)?))
}

/// Which pages a unit maps beside those of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LargePages {
    /// None.
    None,
    /// Up to this many MiB.
    UpTo(u32),
    /// Every power of two: AMD's units (AMD I/O Virtualization Technology §2.2.3).
    All,
}

/// What unit `name` has.
pub(super) fn large_pages(root: &Root, name: &str) -> Option<LargePages> {
    let vtd = register(root, name, VTD).map(vtd_large_pages);
    vtd.or_else(|| register(root, name, AMD).map(|_| LargePages::All))
}

/// Where the kernel shows what a unit can do.
const VTD: &str = "intel-iommu/cap";
const AMD: &str = "amd-iommu/features";

fn register(root: &Root, name: &str, file: &str) -> Option<u64> {
    let text = root.text(format!("sys/class/iommu/{name}/{file}"))?;
    // Behind a colon there is a second register.
    let first = text.split(':').next().unwrap_or_default();
    u64::from_str_radix(first.trim_start_matches("0x"), 16).ok()
}

/// SLLPS, bits 37:34 of the capability register: bit 34 for 2 MiB, bit 35 for 1 GiB (VT-d §11.4.2).
fn vtd_large_pages(capability: u64) -> LargePages {
    match (capability >> 35 & 1, capability >> 34 & 1) {
        (1, _) => LargePages::UpTo(1024),
        (_, 1) => LargePages::UpTo(2),
        _ => LargePages::None,
    }
}

/// MGAW, bits 21:16 of the capability register, plus one (VT-d §11.4.2).
fn vtd_width(capability: u64) -> u32 {
    ((capability >> 16) & 0x3f) as u32 + 1
}

/// HATS, bits 11:10 of the extended features: levels of page tables above four, of nine bits each (AMD I/O
/// Virtualization Technology §3.4.13).
fn amd_width(features: u64) -> Option<u32> {
    match (features >> 10) & 3 {
        3 => None,
        more => Some((12 + 9 * (4 + more as u32)).min(64)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::FakeHost;

    const TABLES: &str = "sys/firmware/acpi/tables";

    /// An AMD host whose firmware has these tables, booted with `cmdline`.
    fn amd(tables: &[&str], cmdline: &str) -> FakeHost {
        let host = FakeHost::new();
        std::fs::remove_file(host.path(TABLES).join("DMAR")).expect("there");
        for table in tables {
            host.file(&format!("{TABLES}/{table}"), "");
        }
        host.file("proc/cmdline", cmdline);
        host.file("proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n");
        host
    }

    #[test]
    fn an_amd_host_is_told_nothing_of_intel() {
        let firmware = "turn it on in the firmware (VT-d, AMD-Vi or IOMMU)";
        assert_eq!(remedy(&amd(&[], "quiet").root()), firmware);
        assert_eq!(
            remedy(&amd(&[], "amd_iommu=off").root()),
            format!("{firmware} and take amd_iommu=off from the kernel's command line")
        );
        let off = "take amd_iommu=off from the kernel's command line and reboot";
        assert_eq!(remedy(&amd(&["IVRS"], "amd_iommu=fullflush,off").root()), off);
        let forced = remedy(&amd(&["IVRS"], "quiet").root());
        assert!(forced.contains("amd_iommu=force_enable"), "{forced}");
    }

    #[test]
    fn an_intel_host_needs_its_option_too() {
        let host = amd(&[], "intel_iommu=off");
        host.file("proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\n");
        let told = remedy(&host.root());
        for words in [
            "in the firmware",
            "take intel_iommu=off",
            "boot the host with intel_iommu=on",
        ] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn remapping_that_amd_firmware_spoils_is_told_by_the_kernel() {
        let told = remapping_remedy(&amd(&["IVRS"], "quiet").root());
        assert!(told.starts_with("dmesg | grep AMD-Vi says why"), "{told}");
        let told = remapping_remedy(&amd(&["IVRS"], "intremap=off").root());
        assert!(told.starts_with("take intremap=off"), "{told}");
    }

    #[test]
    fn units_tell_their_large_pages() {
        let host = amd(&["IVRS"], "quiet");
        host.file("sys/class/iommu/ivhd0/amd-iommu/features", "29d3:0\n");
        assert_eq!(large_pages(&host.root(), "ivhd0"), Some(LargePages::All));
        for (capability, pages) in [
            ("c0000000100000", LargePages::None),
            ("d2008440660462", LargePages::UpTo(2)),
            ("d2008c40660462", LargePages::UpTo(1024)),
        ] {
            host.file(
                "sys/class/iommu/dmar0/intel-iommu/cap",
                &format!("{capability}\n"),
            );
            assert_eq!(large_pages(&host.root(), "dmar0"), Some(pages), "{capability}");
        }
        assert_eq!(large_pages(&host.root(), "dmar1"), None);
    }

    #[test]
    fn amd_units_tell_their_levels() {
        let host = amd(&["IVRS"], "quiet");
        for (features, bits) in [
            ("29d3:0", Some(64)),
            ("0", Some(48)),
            ("77ef22294ada:0", Some(64)),
            ("c00", None),
        ] {
            host.file(
                "sys/class/iommu/ivhd0/amd-iommu/features",
                &format!("{features}\n"),
            );
            assert_eq!(width_bits(&host.root(), "ivhd0"), bits, "{features}");
        }
    }
}

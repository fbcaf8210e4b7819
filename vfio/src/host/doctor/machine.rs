//! The machine: CPU, IOMMU, interrupt remapping, modules.

use super::{Finding, Wishes};
use crate::host::distribution::Distribution;
use crate::host::hardware::Virtualization;
use crate::host::iommu::{self, Firmware, LargePages};
use crate::host::modules::{FOLDERS, ModuleState, module_state};
use crate::host::sysfs::Root;

/// What passing a device needs.
const MODULES: [&str; 3] = ["vfio", "vfio_iommu_type1", "vfio_pci"];
/// Files that name modules to load at boot, and folders of such files.
const MODULE_LISTS: [&str; 2] = ["etc/modules", "etc/initramfs-tools/modules"];
const MODULE_FOLDERS: [&str; 3] = ["etc/modules-load.d", "etc/dracut.conf.d", "etc/modprobe.d"];

pub(super) fn examine(root: &Root, wishes: &Wishes) -> Vec<Finding> {
    let mut findings = vec![
        cpu(root),
        nested(root),
        firmware(root),
        enabled(root),
        interrupt_remapping(root),
    ];
    if !root.names("sys/kernel/iommu_groups").is_empty() {
        findings.insert(4, width(root, wishes));
    }
    findings.push(modules(root));
    findings.push(virqfd(root));
    findings
}

fn cpu(root: &Root) -> Finding {
    let question = "Does the CPU run virtual machines?";
    match Virtualization::read(root) {
        Some(Virtualization::Vmx) => Finding::pass("cpu", question, "yes, by VT-x (vmx)"),
        Some(Virtualization::Svm) => Finding::pass("cpu", question, "yes, by AMD-V (svm)"),
        None => Finding::pass("cpu", question, "/proc/cpuinfo shows neither vmx nor svm").fail(
            "turn on virtualization in the firmware (VT-x, AMD-V or SVM); in a virtual machine, have its host \
             allow nested guests",
        ),
    }
}

fn nested(root: &Root) -> Finding {
    let question = "May guests run guests of their own?";
    let parameter = |module: &str| {
        let text = root.text(format!("sys/module/{module}/parameters/nested"))?;
        Some((module.to_owned(), matches!(text.as_str(), "Y" | "1")))
    };
    match parameter("kvm_intel").or_else(|| parameter("kvm_amd")) {
        Some((module, true)) => Finding::pass("nested", question, format!("yes, {module} has nested on")),
        Some((module, false)) => Finding::pass("nested", question, format!("no, {module} has nested off"))
            .warn(format!(
                "only for guests of guests: echo options {module} nested=1 > /etc/modprobe.d/strait.conf, then \
                 modprobe -r {module} and modprobe {module}"
            )),
        None => {
            let none = Finding::pass("nested", question, "neither kvm_intel nor kvm_amd is loaded");
            none.warn(match Virtualization::read(root) {
                Some(virtualization) => format!("modprobe {}", virtualization.module()),
                None => "only for guests of guests: a CPU that shows vmx or svm".to_owned(),
            })
        }
    }
}

fn firmware(root: &Root) -> Finding {
    let question = "Does the firmware offer an IOMMU?";
    match iommu::firmware(root) {
        Firmware::Intel => Finding::pass("firmware", question, "yes, VT-d: there is an ACPI table DMAR"),
        Firmware::Amd => Finding::pass("firmware", question, "yes, AMD-Vi: there is an ACPI table IVRS"),
        Firmware::Nothing if !root.path("sys/firmware/acpi/tables").exists() => {
            Finding::pass("firmware", question, "no ACPI tables can be seen")
                .unknown("whether the kernel uses one is what counts, see below")
        }
        Firmware::Nothing => Finding::pass("firmware", question, "no ACPI table DMAR or IVRS").fail(
            "turn on VT-d, AMD-Vi or IOMMU in the firmware setup; in a virtual machine, give it an IOMMU",
        ),
    }
}

fn enabled(root: &Root) -> Finding {
    let question = "Does the kernel use the IOMMU?";
    let units = iommu::units(root);
    let groups = root.names("sys/kernel/iommu_groups").len();
    let cmdline = root.text("proc/cmdline").unwrap_or_default();
    let options: Vec<&str> = cmdline
        .split_whitespace()
        .filter(|word| word.contains("iommu"))
        .collect();
    let options = match options.is_empty() {
        true => "no IOMMU option on the command line".to_owned(),
        false => format!("command line: {}", options.join(" ")),
    };
    if groups == 0 {
        let evidence = format!("no IOMMU groups, {options}");
        return Finding::pass("iommu", question, evidence).fail(iommu::remedy(root));
    }
    let units = match units.is_empty() {
        true => "no unit in /sys/class/iommu".to_owned(),
        false => units.join(" "),
    };
    Finding::pass("iommu", question, format!("{units}, {groups} groups, {options}"))
}

fn width(root: &Root, wishes: &Wishes) -> Finding {
    let question = "Does the IOMMU reach all of the guest's memory?";
    let bits = iommu::units(root)
        .iter()
        .filter_map(|unit| iommu::width_bits(root, unit))
        .min();
    let Some(bits) = bits else {
        let evidence = "the kernel tells no width";
        return Finding::pass("iommu-width", question, evidence)
            .unknown("a guest whose memory it does not reach is refused at its start, with the address");
    };
    // RAM is split around a hole of at most 1 GiB below 4 GiB.
    let end = wishes.memory_bytes + (1 << 30);
    let page = iommu::units(root)
        .iter()
        .filter_map(|unit| iommu::large_pages(root, unit))
        .min();
    let page = match page {
        None => String::new(),
        Some(LargePages::None) => ", pages of 4 KiB alone".to_owned(),
        Some(LargePages::UpTo(1024)) => ", pages of up to 1 GiB".to_owned(),
        Some(LargePages::UpTo(mib)) => format!(", pages of up to {mib} MiB"),
        Some(LargePages::All) => ", pages of every power of two".to_owned(),
    };
    let evidence = format!("{bits} address bits{page}");
    match end.checked_shr(bits).unwrap_or(0) {
        0 => Finding::pass("iommu-width", question, evidence),
        _ => Finding::pass("iommu-width", question, evidence).fail("give the guest less memory"),
    }
}

fn interrupt_remapping(root: &Root) -> Finding {
    let question = "Are device interrupts remapped?";
    let check = "interrupt-remapping";
    if !iommu::shows_interrupts(root) {
        return Finding::pass(check, question, "there is no /proc/interrupts to see their controllers in").unknown(
            "VFIO refuses a device at the start of a guest if they are not: dmesg | grep -e DMAR-IR -e AMD-Vi",
        );
    }
    if iommu::remaps_interrupts(root) {
        return Finding::pass(check, question, "yes, /proc/interrupts has controllers named IR-");
    }
    let finding = Finding::pass(check, question, "no controller in /proc/interrupts is named IR-");
    match iommu::allows_unsafe_interrupts(root) {
        true => finding.warn(
            "allow_unsafe_interrupts lets devices be passed all the same, and lets a guest send the host any \
             interrupt; use it for guests you trust",
        ),
        false => finding.fail(iommu::remapping_remedy(root)),
    }
}

fn modules(root: &Root) -> Finding {
    let question = "Are the VFIO modules there?";
    let states = MODULES.map(|module| (module, module_state(root, module)));
    let evidence: Vec<String> = states
        .iter()
        .map(|(module, state)| format!("{module} {}", state_name(*state)))
        .collect();
    let finding = Finding::pass("vfio-modules", question, evidence.join(", "));
    let any = |wanted| states.iter().any(|(_, state)| *state == wanted);
    if any(ModuleState::Missing) {
        finding.fail("install a kernel with VFIO: CONFIG_VFIO_PCI and CONFIG_VFIO_IOMMU_TYPE1")
    } else if any(ModuleState::Unknown) {
        let release = root.text("proc/sys/kernel/osrelease").unwrap_or_default();
        let places = FOLDERS.map(|folder| format!("/{folder}/{release}")).join(", ");
        finding.unknown(format!(
            "there is no list of modules in {places}; on the host itself, modprobe -a vfio-pci vfio_iommu_type1 \
             shows whether they are there"
        ))
    } else {
        finding
    }
}

fn state_name(state: ModuleState) -> &'static str {
    match state {
        ModuleState::BuiltIn => "built in",
        ModuleState::Loaded => "loaded",
        ModuleState::Loadable => "not loaded yet",
        ModuleState::Missing => "missing",
        ModuleState::Unknown => "not loaded",
    }
}

/// vfio_virqfd became a part of vfio in Linux 6.2: old guides still name it, and loading it fails.
fn virqfd(root: &Root) -> Finding {
    let question = "Is only asked for modules that exist?";
    let mut files: Vec<String> = MODULE_LISTS.map(str::to_owned).to_vec();
    for folder in MODULE_FOLDERS {
        let names = root.names(folder);
        files.extend(names.iter().map(|name| format!("{folder}/{name}")));
    }
    let mentions = |file: &String| {
        let text = root.text(file).unwrap_or_default();
        let mut lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        lines.any(|line| line.contains("vfio_virqfd") || line.contains("vfio-virqfd"))
    };
    let Some(file) = files.iter().find(|file| mentions(file)) else {
        let evidence = "nothing asks for vfio_virqfd, which is gone since 6.2";
        return Finding::pass("vfio-virqfd", question, evidence);
    };
    let asks = |why: &str| {
        Finding::pass(
            "vfio-virqfd",
            question,
            format!("/{file} asks for vfio_virqfd, {why}"),
        )
    };
    let rebuild = Distribution::read(root).rebuild_initramfs();
    match module_state(root, "vfio_virqfd") {
        ModuleState::Missing => asks("which is a part of vfio since Linux 6.2")
            .warn(format!("take the line from /{file} and run {rebuild}")),
        ModuleState::Unknown => asks("and this kernel's modules cannot be seen").unknown(format!(
            "from Linux 6.2 on take the line from /{file} and run {rebuild}"
        )),
        _ => asks("and this kernel has it"),
    }
}

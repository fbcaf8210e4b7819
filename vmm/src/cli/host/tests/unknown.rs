//! What the host does not tell is told as unknown: neither as well nor as wrong.

use std::fs;

use super::*;

/// The doctor's findings about the NIC after `change`, each as `check verdict`, and its exit code.
fn verdicts(change: impl Fn(&FakeHost)) -> (Vec<String>, u8) {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file("dev/vfio/vfio", "");
    host.file("dev/vfio/14", "");
    change(&host);
    let (text, code) = run(&host, "host doctor --json -q 01:00.0").expect("findings");
    let findings: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let told = |finding: &serde_json::Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("check"), text("verdict"))
    };
    (
        findings.as_array().expect("a list").iter().map(told).collect(),
        code,
    )
}

fn unknown(check: &str) -> (Vec<String>, u8) {
    (vec![format!("{check} UNKNOWN")], 0)
}

#[test]
fn modules_that_cannot_be_seen() {
    let told = verdicts(|host| fs::remove_dir_all(host.path("lib/modules")).expect("there"));
    assert_eq!(told, unknown("vfio-modules"));
}

#[test]
fn nixos_has_its_modules_elsewhere() {
    let told = verdicts(|host| {
        let place = host.path("run/booted-system/kernel-modules/lib");
        fs::create_dir_all(&place).expect("a folder");
        fs::rename(host.path("lib/modules"), place.join("modules")).expect("moved");
    });
    assert_eq!(told, (Vec::new(), 0));
}

#[test]
fn loaded_modules_need_no_list() {
    let told = verdicts(|host| {
        fs::remove_dir_all(host.path("lib/modules")).expect("there");
        for module in ["vfio", "vfio_iommu_type1", "vfio_pci"] {
            host.file(&format!("sys/module/{module}/initstate"), "live\n");
        }
    });
    assert_eq!(told, (Vec::new(), 0));
}

#[test]
fn a_module_that_may_be_gone() {
    let told = verdicts(|host| {
        fs::remove_dir_all(host.path("lib/modules")).expect("there");
        host.file("etc/modules", "vfio_virqfd\n");
    });
    assert_eq!(told.0, ["vfio-modules UNKNOWN", "vfio-virqfd UNKNOWN"]);
}

#[test]
fn an_iommu_that_tells_no_width() {
    let told = verdicts(|host| {
        fs::remove_dir_all(host.path("sys/class/iommu/dmar0")).expect("there");
        host.file("sys/class/iommu/ivhd0/amd-iommu/cap", "0\n");
    });
    assert_eq!(told, unknown("iommu-width"));
}

#[test]
fn an_amd_iommu_that_tells_its_levels() {
    let told = verdicts(|host| {
        fs::remove_dir_all(host.path("sys/class/iommu/dmar0")).expect("there");
        host.file("sys/class/iommu/ivhd0/amd-iommu/features", "29d3:0\n");
    });
    assert_eq!(told, (Vec::new(), 0));
}

/// The question of its width is not asked where none is in use.
#[test]
fn an_iommu_that_is_off() {
    let told = verdicts(|host| {
        fs::remove_dir_all(host.path("sys/kernel/iommu_groups")).expect("there");
        fs::remove_dir_all(host.path("sys/class/iommu")).expect("there");
    });
    assert!(
        !told.0.iter().any(|line| line.starts_with("iommu-width")),
        "{told:?}"
    );
}

#[test]
fn interrupts_that_are_not_shown() {
    let told = verdicts(|host| fs::remove_file(host.path("proc/interrupts")).expect("there"));
    assert_eq!(told, unknown("interrupt-remapping"));
}

#[test]
fn firmware_tables_that_are_not_shown() {
    let told = verdicts(|host| fs::remove_dir_all(host.path("sys/firmware")).expect("there"));
    assert_eq!(told, unknown("firmware"));
}

#[test]
fn bars_that_are_not_shown() {
    let told = verdicts(|host| {
        fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0/resource")).expect("there");
    });
    assert_eq!(told, unknown("bars"));
}

#[test]
fn a_rom_that_only_root_can_read() {
    let told = verdicts(|host| {
        let line = "0x0 0x0 0x0\n".repeat(6);
        let file = "sys/bus/pci/devices/0000:01:00.0/resource";
        fs::write(host.path(file), format!("{line}0xfe000000 0xfe00ffff 0x46200\n")).expect("there");
    });
    assert_eq!(told, unknown("rom"));
}

#[test]
fn a_kernel_without_transparent_huge_pages_is_known_to_have_none() {
    let told = verdicts(|host| fs::remove_dir_all(host.path("sys/kernel/mm")).expect("there"));
    assert_eq!(told, (vec!["huge-pages WARN".to_owned()], 0));
}

#[test]
fn it_is_printed_with_what_tells() {
    let host = host();
    fs::remove_dir_all(host.path("lib/modules")).expect("there");
    let (text, _) = run(&host, "host doctor -q").expect("findings");
    assert!(text.contains("UNKNOWN  Are the VFIO modules there?"), "{text}");
    assert!(text.contains("/lib/modules/6.12.0"), "{text}");
}

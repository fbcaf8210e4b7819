//! Checks of hosts built from files in a temporary folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{CheckError, Group, HostBdf, Root, RunningKernel, Usage, check};

const NIC: &str = "0000:01:00.0";
const MEMORY: u64 = 512 << 20;

/// A host in the making: sysfs, procfs and /dev below one folder.
struct Host {
    folder: TempDir,
}

impl Host {
    /// VFIO is loaded, and this process may lock as much as it likes.
    fn new() -> Self {
        let host = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        host.file("dev/vfio/vfio", "");
        host.file("proc/1/comm", "systemd\n");
        host.limits("0000000000000000", "unlimited");
        host
    }

    /// A host with a NIC alone in group 7, on vfio-pci.
    fn with_nic() -> Self {
        Self::new()
            .device(NIC, 0x02_0000, Some(7), Some("vfio-pci"))
            .file_of_group(7)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    fn link(&self, path: &str, target: impl AsRef<Path>) {
        let path = self.path(path);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().expect("a link in a folder")).expect("a folder");
        symlink(target, path).expect("a link");
    }

    fn device(self, bdf: &str, class: u32, group: Option<u32>, driver: Option<&str>) -> Self {
        let folder = format!("sys/bus/pci/devices/{bdf}");
        self.file(&format!("{folder}/class"), &format!("0x{class:06x}\n"));
        self.file(&format!("{folder}/vendor"), "0x8086\n");
        self.file(&format!("{folder}/device"), "0x10c9\n");
        self.file(&format!("{folder}/driver_override"), "(null)\n");
        if let Some(driver) = driver {
            self.link(
                &format!("{folder}/driver"),
                format!("../../../../bus/pci/drivers/{driver}"),
            );
        }
        if let Some(group) = group {
            self.link(
                &format!("{folder}/iommu_group"),
                format!("../../../../kernel/iommu_groups/{group}"),
            );
            self.file(&format!("sys/kernel/iommu_groups/{group}/devices/{bdf}"), "");
        }
        self
    }

    fn file_of_group(self, group: u32) -> Self {
        self.file(&format!("dev/vfio/{group}"), "");
        self
    }

    fn limits(&self, capabilities: &str, locked: &str) {
        self.file(
            "proc/self/status",
            &format!("Name:\tstrait\nCapEff:\t{capabilities}\n"),
        );
        let line = format!("Max locked memory         {locked}              {locked}              bytes");
        self.file(
            "proc/self/limits",
            &format!("Limit     Soft Limit    Hard Limit    Units\n{line}\n"),
        );
    }

    fn root(&self) -> Root {
        Root::at(self.folder.path())
    }

    fn check(&self, devices: &[&str]) -> Result<Vec<Group>, CheckError> {
        let devices: Vec<HostBdf> = devices.iter().map(|name| name.parse().expect("a name")).collect();
        check(
            crate::host::Host::new(&self.root(), &RunningKernel),
            &devices,
            MEMORY,
        )
    }

    /// The text of what is in the way of the NIC.
    fn refusal(&self) -> String {
        self.check(&[NIC]).expect_err("not ready").to_string()
    }
}

#[test]
fn a_ready_device_passes_and_nothing_changes() {
    let host = Host::with_nic();
    let groups = host.check(&[NIC]).expect("ready");
    assert_eq!(
        (groups.len(), groups[0].number, groups[0].members.len()),
        (1, 7, 1)
    );
}

#[test]
fn without_devices_nothing_is_asked() {
    let host = Host {
        folder: tempfile::tempdir().expect("a temporary folder"),
    };
    assert!(host.check(&[]).expect("nothing to check").is_empty());
}

#[test]
fn a_device_that_is_not_there() {
    let text = Host::new().refusal();
    assert_eq!(
        text,
        "there is no PCI device 0000:01:00.0; `strait host list` shows those there are"
    );
}

#[test]
fn the_same_device_twice() {
    let error = Host::with_nic().check(&[NIC, "01:00.0"]).expect_err("twice");
    assert_eq!(error.to_string(), "0000:01:00.0 is given twice");
}

#[test]
fn a_bridge_even_without_an_iommu() {
    let host = Host::new().device(NIC, 0x06_0400, None, Some("pcieport"));
    assert!(matches!(host.check(&[NIC]), Err(CheckError::Bridge(_))));
}

#[test]
fn no_iommu_is_not_the_same_as_not_bound() {
    let host = Host::new().device(NIC, 0x02_0000, None, Some("igb"));
    let text = host.refusal();
    assert!(
        text.contains("IOMMU is off") && text.contains("intel_iommu=on"),
        "{text}"
    );
}

#[test]
fn another_driver_is_named_with_the_command_that_changes_it() {
    let text = Host::new().device(NIC, 0x02_0000, Some(7), Some("igb")).refusal();
    let command = "give it up with: strait host bind 0000:01:00.0";
    assert!(text.contains("bound to igb") && text.ends_with(command), "{text}");
}

#[test]
fn without_a_driver_it_is_not_bound_either() {
    let text = Host::new().device(NIC, 0x02_0000, Some(7), None).refusal();
    assert!(text.contains("no driver"), "{text}");
}

#[test]
fn memory_reserved_by_the_firmware_is_named() {
    let host = Host::with_nic();
    let path = "sys/kernel/iommu_groups/7/reserved_regions";
    host.file(
        path,
        "0x00000000fee00000 0x00000000feefffff msi\n0x1000 0x2fff direct\n",
    );
    assert!(host.refusal().contains("0x1000-0x2fff for 0000:01:00.0 (RMRR)"));
    host.file(path, "0x00000000000e8000 0x00000000000e8fff direct-relaxable\n");
    host.check(&[NIC]).expect("relaxable");
}

#[test]
fn interrupts_that_are_not_remapped_must_be_allowed() {
    let host = Host::with_nic();
    host.file("proc/interrupts", "24: 0 PCI-MSI eth0\n");
    let text = host.refusal();
    assert!(
        text.contains("0000:01:00.0") && text.contains("any interrupt"),
        "{text}"
    );
    assert!(
        text.contains("vfio_iommu_type1.allow_unsafe_interrupts=1"),
        "{text}"
    );
    host.file(
        "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "Y\n",
    );
    host.check(&[NIC]).expect("allowed");
    host.file("proc/interrupts", "24: 0 IR-PCI-MSI eth0\n");
    host.check(&[NIC]).expect("remapped");
}

#[test]
fn every_member_that_is_in_the_way_is_named() {
    let host = Host::with_nic()
        .device("0000:01:00.1", 0x04_0300, Some(7), Some("snd_hda_intel"))
        .device("0000:01:00.2", 0x0c_0330, Some(7), Some("xhci_hcd"))
        .device("0000:01:00.3", 0x0c_8000, Some(7), None);
    let text = host.refusal();
    let named = "IOMMU group 7 with devices that the host uses: 0000:01:00.1 (snd_hda_intel), \
                 0000:01:00.2 (xhci_hcd);";
    assert!(text.contains(named), "{text}");
}

#[test]
fn ports_stubs_and_members_of_other_vfio_drivers_are_no_trouble() {
    let host = Host::with_nic()
        .device("0000:00:1c.0", 0x06_0400, Some(7), Some("pcieport"))
        .device("0000:01:00.1", 0x02_0000, Some(7), Some("pci-stub"))
        .device("0000:01:00.2", 0x02_0000, Some(7), Some("mlx5_vfio_pci"));
    assert_eq!(host.check(&[NIC]).expect("viable")[0].members.len(), 4);
}

#[test]
fn two_devices_of_one_group_are_one_group() {
    let host = Host::with_nic().device("0000:01:00.1", 0x04_0300, Some(7), Some("vfio-pci"));
    assert_eq!(host.check(&[NIC, "01:00.1"]).expect("ready").len(), 1);
}

#[test]
fn vfio_is_not_loaded() {
    let host = Host::with_nic();
    fs::remove_file(host.path("dev/vfio/vfio")).expect("there");
    let text = host.refusal();
    assert!(
        text.contains("/dev/vfio/vfio") && text.contains("modprobe"),
        "{text}"
    );
}

#[test]
fn a_group_file_that_is_not_there_is_told_with_its_path() {
    let host = Host::new().device(NIC, 0x02_0000, Some(7), Some("vfio-pci"));
    assert!(host.refusal().contains("/dev/vfio/7"));
}

#[test]
fn too_little_lockable_memory_says_how_much_is_needed() {
    let host = Host::with_nic();
    host.limits("0000000000000000", "8388608");
    let text = host.refusal();
    assert!(
        text.contains("512 MiB, but the limit is 8 MiB") && text.contains("ulimit -l 524288"),
        "{text}"
    );
}

#[test]
fn root_may_lock_all() {
    let host = Host::with_nic();
    host.limits("000001ffffffffff", "8388608");
    host.check(&[NIC]).expect("CAP_IPC_LOCK");
}

#[test]
fn a_limit_that_is_enough_is_enough() {
    let host = Host::with_nic();
    host.limits("0000000000000000", &MEMORY.to_string());
    host.check(&[NIC]).expect("just enough");
}

#[test]
fn who_holds_a_group_is_found() {
    let host = Host::with_nic();
    host.link("proc/41/fd/3", "/dev/null");
    host.file("proc/41/comm", "cat\n");
    host.link("proc/4711/fd/9", "/dev/vfio/7");
    host.file("proc/4711/comm", "qemu-system-x86\n");
    let nic = NIC.parse().expect("a name");
    let holder = Usage::read(&host.root())
        .guest(&host.root(), nic)
        .expect("process 4711");
    assert_eq!((holder.pid, holder.name.as_str()), (4711, "qemu-system-x86"));
    host.link("proc/4711/fd/9", "/dev/vfio/8");
    assert_eq!(Usage::read(&host.root()).guest(&host.root(), nic), None);
}

#[test]
fn a_garbled_sysfs_is_an_error() {
    let host = Host::with_nic();
    host.file("sys/bus/pci/devices/0000:01:00.0/class", "network\n");
    assert!(matches!(host.check(&[NIC]), Err(CheckError::Sysfs { .. })));
}

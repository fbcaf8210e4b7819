//! A host made of files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::fault::{Does, Fault};
use crate::host::sysfs::{Root, names_in, read_text};

pub(super) const DEVICES: &str = "sys/bus/pci/devices";
pub(super) const DRIVERS: &str = "sys/bus/pci/drivers";

/// A host in the making.
pub struct FakeHost {
    folder: TempDir,
    pub(super) faults: RefCell<Vec<Fault>>,
    /// Disks that do not open, and the errno.
    pub(super) claims: RefCell<BTreeMap<String, i32>>,
    /// Every disk that was asked for.
    pub(super) asked: RefCell<Vec<String>>,
    /// Writes that the kernel still works on.
    pub(super) pending: RefCell<Vec<(PathBuf, String)>>,
}

/// A function to add to a [`FakeHost`].
#[derive(Clone, Copy, Debug)]
pub struct FakeFunction {
    /// Path from the root bus, as in `0000:00:01.0/0000:01:00.0`.
    pub path: &'static str,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// Vendor id and device id.
    pub ids: (u16, u16),
    /// Number of its IOMMU group.
    pub group: Option<u32>,
    /// The driver that has it, and that the kernel chooses for it.
    pub driver: Option<&'static str>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHost {
    /// Linux with VFIO as modules on an Intel machine, without any device.
    pub fn new() -> Self {
        // In memory if possible: the journal waits for its disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let host = Self {
            folder: folder.expect("a temporary folder"),
            faults: RefCell::default(),
            claims: RefCell::default(),
            asked: RefCell::default(),
            pending: RefCell::default(),
        };
        host.file("proc/sys/kernel/osrelease", "6.12.0\n");
        host.file("proc/cmdline", "quiet intel_iommu=on\n");
        host.file(
            "proc/cpuinfo",
            "flags\t\t: fpu vmx\naddress sizes\t: 46 bits physical, 48 bits virtual\n",
        );
        host.file(
            "proc/interrupts",
            " 24:  0  IR-PCI-MSI-0000:01:00.0  0-edge  eth0\n",
        );
        host.file("proc/self/status", "Name:\tstrait\nCapEff:\t000001ffffffffff\n");
        host.sees_namespace("4026531836");
        host.file("proc/1/comm", "systemd\n");
        host.file("etc/os-release", "ID=debian\n");
        host.file("dev/kvm", "");
        host.file("sys/firmware/acpi/tables/DMAR", "");
        host.file("sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40660462\n");
        host.file("sys/module/kvm_intel/parameters/nested", "Y\n");
        host.file(
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        );
        host.file("sys/bus/pci/drivers_probe", "");
        host.file(&format!("{DEVICES}/.keep"), "");
        host.file(&format!("{DRIVERS}/.keep"), "");
        host.file(
            "lib/modules/6.12.0/modules.dep",
            "kernel/vfio.ko:\nkernel/vfio_iommu_type1.ko:\nkernel/vfio-pci.ko:\n",
        );
        host
    }

    /// Where its files are.
    pub fn root(&self) -> Root {
        Root::at(self.folder.path())
    }

    /// A path of the host on this machine.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file and the folders it is in.
    pub fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        // Only what has numbers has a file (`dev_uevent`, drivers/base/core.c).
        if path.ends_with("uevent") && content.contains("DEVNAME=") {
            fs::write(path.with_file_name("dev"), "0:0\n").expect("a file");
        }
        fs::write(path, content).expect("a file");
    }

    /// Makes a link; `target` is a path of the host.
    pub fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a link in a folder")).expect("a folder");
        symlink(self.path(target), path).expect("a link");
    }

    /// Adds a function, its group and its driver.
    pub fn add(&self, function: FakeFunction) -> &Self {
        let FakeFunction {
            path,
            class,
            ids,
            group,
            driver,
        } = function;
        let bdf = path.rsplit('/').next().unwrap_or(path);
        let folder = format!("sys/devices/pci0000:00/{path}");
        let (vendor, device) = ids;
        self.file(&format!("{folder}/class"), &format!("{class:#08x}\n"));
        self.file(&format!("{folder}/vendor"), &format!("{vendor:#06x}\n"));
        self.file(&format!("{folder}/device"), &format!("{device:#06x}\n"));
        self.file(
            &format!("{folder}/modalias"),
            &format!(
                "pci:v{vendor:08X}d{device:08X}sv00000000sd00000000bc{:02x}\n",
                class >> 16
            ),
        );
        self.file(&format!("{folder}/driver_override"), "(null)\n");
        self.file(&format!("{folder}/reset_method"), "flr bus\n");
        self.file(&format!("{folder}/numa_node"), "-1\n");
        self.file(
            &format!("{folder}/resource"),
            "0xfe000000 0xfe01ffff 0x0000000000040200\n",
        );
        self.file(&format!("{folder}/uevent"), "PCI_SLOT_NAME=x\n");
        // What the kernel would choose, for the kernel here.
        self.file(&format!("{folder}/.natural"), driver.unwrap_or_default());
        self.link(&format!("{DEVICES}/{bdf}"), &folder);
        if let Some(group) = group {
            self.link(
                &format!("{folder}/iommu_group"),
                &format!("sys/kernel/iommu_groups/{group}"),
            );
            self.link(&format!("sys/kernel/iommu_groups/{group}/devices/{bdf}"), &folder);
            self.file(
                &format!("sys/kernel/iommu_groups/{group}/reserved_regions"),
                "0xfee00000 0xfeefffff msi\n",
            );
        }
        if let Some(driver) = driver {
            self.add_driver(driver);
            self.attach(bdf, driver);
        }
        self
    }

    /// Adds network interface `name` to the function at `path`.
    pub fn add_interface(&self, path: &str, name: &str) -> &Self {
        let folder = format!("sys/devices/pci0000:00/{path}/net/{name}");
        self.file(&format!("{folder}/flags"), "0x1002\n");
        self.file(&format!("{folder}/address"), "52:54:00:11:22:33\n");
        self.link(&format!("sys/class/net/{name}"), &folder);
        self
    }

    /// Adds disk `name` with a partition to the function at `path`.
    pub fn add_disk(&self, path: &str, name: &str, number: &str) -> &Self {
        let folder = format!("sys/devices/pci0000:00/{path}/nvme/nvme0/{name}");
        let partition = format!("{folder}/{name}p1");
        self.file(&format!("{folder}/uevent"), &format!("DEVNAME={name}\n"));
        self.file(&format!("{partition}/partition"), "1\n");
        self.link(&format!("sys/class/block/{name}"), &folder);
        self.link(&format!("sys/class/block/{name}p1"), &partition);
        self.link(&format!("sys/dev/block/{number}"), &partition);
        self
    }

    /// Adds SR-IOV with up to `max` virtual functions to the function at `path`.
    pub fn add_sriov(&self, path: &str, max: u32) -> &Self {
        let folder = format!("sys/devices/pci0000:00/{path}");
        self.file(&format!("{folder}/sriov_totalvfs"), &format!("{max}\n"));
        self.file(&format!("{folder}/sriov_numvfs"), "0\n");
        self.file(&format!("{folder}/sriov_drivers_autoprobe"), "1\n");
        self
    }

    /// Process `pid` has `file` open.
    pub fn add_process(&self, pid: u32, name: &str, file: &str) -> &Self {
        self.file(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        fs::create_dir_all(self.path(format!("proc/{pid}/fd"))).expect("a folder");
        let fd = self.path(format!("proc/{pid}/fd"));
        let number = names_in(&fd).len() + 3;
        symlink(
            self.path(file.trim_start_matches('/')),
            fd.join(number.to_string()),
        )
        .expect("a link");
        self
    }

    /// Processes are seen from the namespace with this number, 4026531836 for the one of all.
    pub fn sees_namespace(&self, number: &str) {
        let folder = self.path("proc/self/ns");
        fs::create_dir_all(&folder).expect("a folder");
        let _ = fs::remove_file(folder.join("pid"));
        symlink(format!("pid:[{number}]"), folder.join("pid")).expect("a link");
    }

    /// Whoever asks for the whole of `disk` gets `number` for an answer.
    pub fn claimed(&self, disk: &str, number: i32) {
        self.claims.borrow_mut().insert(disk.to_owned(), number);
    }

    /// The disks that were asked for since this was last called.
    pub fn take_asked(&self) -> Vec<String> {
        self.asked.take()
    }

    /// Has something go wrong.
    pub fn fault(&self, file: &'static str, nth: u32, does: Does) {
        self.faults.borrow_mut().push(Fault { file, nth, does });
    }

    /// The driver of `bdf` and its override, `-` for none.
    pub fn binding(&self, bdf: &str) -> (String, String) {
        let folder = self.path(DEVICES).join(bdf);
        let driver = fs::read_link(folder.join("driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let override_driver = read_text(&folder.join("driver_override")).unwrap_or_default();
        let text = if override_driver == "(null)" {
            "-".to_owned()
        } else {
            override_driver
        };
        (driver.unwrap_or_else(|| "-".to_owned()), text)
    }

    /// Every file and link with what it holds, but for locks.
    pub fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for name in names_in(&folder) {
                let path = folder.join(name);
                let kind = fs::symlink_metadata(&path).expect("it was listed").file_type();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    picture.insert(path, target.display().to_string());
                } else if !path.ends_with("run/strait/lock") {
                    let text = fs::read(&path).expect("a file");
                    picture.insert(path, String::from_utf8_lossy(&text).into_owned());
                }
            }
        }
        picture
    }

    /// Registers a driver with the fake kernel.
    pub fn add_driver(&self, driver: &str) {
        for file in ["bind", "unbind", "new_id"] {
            self.file(&format!("{DRIVERS}/{driver}/{file}"), "");
        }
    }

    /// Lets a driver have a function.
    pub(super) fn attach(&self, bdf: &str, driver: &str) {
        self.link(&format!("{DEVICES}/{bdf}/driver"), &format!("{DRIVERS}/{driver}"));
    }
}
